#include "workspace.h"

#include <vector>

#include "huge_pages.h"

namespace ingot {
namespace {
thread_local std::vector<char, HugePages<char> > kept;
thread_local bool in_use = false;

// As kept.h's, which is each ISA level's own: this is compiled for all of them.
char* grown(size_t bytes) {
  if (kept.size() < bytes) {
    kept = {};  // what is there need not be copied
    kept.resize(bytes);
  }
  return kept.data();
}
}  // namespace

Workspace::Workspace(int64_t bytes)
    : bytes_(static_cast<size_t>(bytes)), outer_(bytes > 0 && !in_use), data_(nullptr) {
  if (outer_) {
    data_ = grown(bytes_);
    in_use = true;
  } else if (bytes > 0) {
    data_ = static_cast<char*>(allocate_pages(bytes_));
  }
}

Workspace::~Workspace() {
  if (outer_)
    in_use = false;
  else
    free_pages(data_, bytes_);
}

}  // namespace ingot

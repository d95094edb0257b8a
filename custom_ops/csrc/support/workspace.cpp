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
    : bytes_(static_cast<size_t>(bytes)),
      inner_(in_use),
      data_(inner_ ? static_cast<char*>(allocate_pages(bytes_)) : grown(bytes_)) {
  in_use = true;
}

Workspace::~Workspace() {
  if (inner_)
    free_pages(data_, bytes_);
  else
    in_use = false;
}

}  // namespace ingot

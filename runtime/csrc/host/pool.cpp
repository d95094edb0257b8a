#include "pool.h"

#include <atomic>
#include <cstdlib>
#include <mutex>
#include <new>
#include <vector>

#include "../size_class.h"

namespace ingot::host {
namespace {
std::mutex mutex;
// Never destroyed: a step may still run when the process's static objects end.
auto* const free_lists = new std::vector<char*>[kSizeClasses];
std::atomic<size_t> held{0};

void give_back(char* data, int index) {
  std::lock_guard lock(mutex);
  free_lists[index].push_back(data);
}

// What this thread freed last of the smallest class, which holds the handles: a step makes and ends
// hundreds of them, without a lock.
struct Recent {
  static constexpr int kMost = 256;
  int count = 0, most = kMost;
  char* data[kMost];

  ~Recent() {
    while (count > 0) give_back(data[--count], 0);
    most = 0;  // objects that end after this one
  }
};
thread_local Recent recent;
}  // namespace

char* pool_allocate(size_t bytes) {
  const SizeClass size = size_class(bytes);
  if (size.index == 0 && recent.count > 0) return recent.data[--recent.count];
  {
    std::lock_guard lock(mutex);
    std::vector<char*>& list = free_lists[size.index];
    if (!list.empty()) {
      char* data = list.back();
      list.pop_back();
      return data;
    }
  }
  held += size.bytes;
  return static_cast<char*>(::operator new(size.bytes, std::align_val_t{64}));
}

void pool_free(char* data, size_t bytes) {
  const SizeClass size = size_class(bytes);
  if (size.index == 0 && recent.count < recent.most)
    recent.data[recent.count++] = data;
  else
    give_back(data, size.index);
}

size_t pool_bytes() { return held; }
}  // namespace ingot::host

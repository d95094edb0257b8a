#include "pool.h"

#include <algorithm>
#include <atomic>
#include <mutex>
#include <vector>

#include "../size_class.h"
#include "huge_pages.h"

namespace ingot::host {
namespace {
// A step's temporaries are of several classes and not in use all at once: what it leaves free is
// more than its peak, and far below this many times that.
constexpr size_t kMostIdle = 4;
constexpr size_t kAlwaysKept = size_t{64} << 20;

std::mutex mutex;
// Never destroyed: a step may still run when the process's static objects end.
auto* const free_lists = new std::vector<char*>[kSizeClasses];
std::atomic<size_t> held{0};
// Of all classes but the smallest, under the mutex.
size_t in_use = 0, most_in_use = 0, idle = 0;

char* from_system(size_t bytes) {
  held += bytes;
  return static_cast<char*>(allocate_pages(bytes));
}

void to_system(char* data, size_t bytes) {
  held -= bytes;
  free_pages(data, bytes);
}

void give_back_smallest(char* data) {
  std::lock_guard lock(mutex);
  free_lists[0].push_back(data);
}

// Every class's but the smallest's.
void empty_free_lists() {
  for (int index = 1; index < kSizeClasses; index++) {
    for (char* data : free_lists[index]) to_system(data, class_bytes(index));
    free_lists[index].clear();
  }
  idle = 0;
}

// What this thread freed last of the smallest class, which holds the handles: a step makes and ends
// hundreds of them, without a lock.
struct Recent {
  static constexpr int kMost = 256;
  int count = 0, most = kMost;
  char* data[kMost];

  ~Recent() {
    while (count > 0) give_back_smallest(data[--count]);
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
    if (size.index > 0) most_in_use = std::max(most_in_use, in_use += size.bytes);
    std::vector<char*>& list = free_lists[size.index];
    if (!list.empty()) {
      char* data = list.back();
      list.pop_back();
      if (size.index > 0) idle -= size.bytes;
      return data;
    }
  }
  return from_system(size.bytes);
}

void pool_free(char* data, size_t bytes) {
  const SizeClass size = size_class(bytes);
  if (size.index == 0) {
    if (recent.count < recent.most)
      recent.data[recent.count++] = data;
    else
      give_back_smallest(data);
    return;
  }
  std::lock_guard lock(mutex);
  free_lists[size.index].push_back(data);
  in_use -= size.bytes;
  idle += size.bytes;
  if (idle > std::max(kMostIdle * most_in_use, kAlwaysKept)) empty_free_lists();
}

size_t pool_bytes() { return held; }
}  // namespace ingot::host

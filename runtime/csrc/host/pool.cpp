#include "pool.h"

#include <mutex>
#include <vector>

#include "../size_class.h"
#include "arena.h"
#include "huge_pages.h"

namespace ingot::host {
namespace {
// From here on buffers share an arena: of smaller ones, which keep to their size class, a step has
// too few to matter.
constexpr size_t kShared = size_t{64} << 10;

// Never destroyed: a step may still run when the process's static objects end.
struct Pool {
  std::mutex mutex;
  std::vector<char*> free[kSizeClasses];
  size_t small_bytes = 0;
  Arena medium{/*huge_pages=*/false}, large{/*huge_pages=*/true};

  Arena& arena(size_t bytes) { return bytes < kHugePage ? medium : large; }
};
auto& pool = *new Pool;

void give_back_smallest(char* data) {
  std::lock_guard lock(pool.mutex);
  pool.free[0].push_back(data);
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
  std::lock_guard lock(pool.mutex);
  if (bytes >= kShared) return pool.arena(bytes).allocate(bytes);
  std::vector<char*>& list = pool.free[size.index];
  if (!list.empty()) {
    char* data = list.back();
    list.pop_back();
    return data;
  }
  pool.small_bytes += size.bytes;
  return static_cast<char*>(allocate_pages(size.bytes));
}

void pool_free(char* data, size_t bytes) {
  const SizeClass size = size_class(bytes);
  if (size.index == 0 && recent.count < recent.most) {
    recent.data[recent.count++] = data;
    return;
  }
  std::lock_guard lock(pool.mutex);
  if (bytes >= kShared)
    pool.arena(bytes).free(data, bytes);
  else
    pool.free[size.index].push_back(data);
}

size_t pool_bytes() {
  std::lock_guard lock(pool.mutex);
  return pool.small_bytes + pool.medium.held() + pool.large.held();
}
}  // namespace ingot::host

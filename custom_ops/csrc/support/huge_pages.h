// Memory of what a step writes and reads again, by huge pages where it is large: rows lie a page of
// 4 KiB and more from each other, and a product that walks down them waits for the page tables.
#pragma once

#include <sys/mman.h>

#include <cstddef>
#include <new>

namespace ingot {
namespace {  // each level's code has its own

constexpr size_t kHugePage = size_t{2} << 20;
constexpr size_t kCacheLine = 64;

inline std::align_val_t alignment_of(size_t bytes) {
  return std::align_val_t{bytes < kHugePage ? kCacheLine : kHugePage};
}

// On a cache line, or a huge page of those that are asked for: no more memory than `bytes` becomes
// resident, and where the kernel has no such pages, smaller ones do. Throws std::bad_alloc.
inline void* allocate_pages(size_t bytes) {
  void* memory = ::operator new(bytes, alignment_of(bytes));
  if (bytes >= kHugePage) madvise(memory, bytes / kHugePage * kHugePage, MADV_HUGEPAGE);
  return memory;
}

inline void free_pages(void* memory, size_t bytes) {
  ::operator delete(memory, alignment_of(bytes));
}

// For std::vector.
template <typename T>
struct HugePages {
  using value_type = T;
  HugePages() = default;
  template <typename U>
  explicit HugePages(const HugePages<U>&) {}
  T* allocate(size_t count) { return static_cast<T*>(allocate_pages(count * sizeof(T))); }
  void deallocate(T* memory, size_t count) { free_pages(memory, count * sizeof(T)); }
  bool operator==(const HugePages&) const { return true; }
  bool operator!=(const HugePages&) const { return false; }
};

}  // namespace
}  // namespace ingot

#include "arena.h"

#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cstdint>
#include <new>

#include "huge_pages.h"

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#endif

namespace ingot::host {
namespace {
constexpr size_t kPage = 4096;
constexpr size_t kMostBytes = size_t{1} << 60;  // sums of sizes stay in range

// AddressSanitizer is told what of `data`'s pages may be touched.
void may_touch(char* data, size_t bytes, size_t pages) {
#if defined(__SANITIZE_ADDRESS__)
  ASAN_POISON_MEMORY_REGION(data, pages);
  ASAN_UNPOISON_MEMORY_REGION(data, bytes);
#endif
  (void)data, (void)bytes, (void)pages;
}

size_t rounded(size_t bytes, size_t unit) { return (bytes + unit - 1) / unit * unit; }

// Null where there are none.
char* addresses(size_t bytes) {
  void* found = mmap(nullptr, bytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  return found == MAP_FAILED ? nullptr : static_cast<char*>(found);
}

size_t memory_of_machine() {
  return static_cast<size_t>(sysconf(_SC_PHYS_PAGES)) * static_cast<size_t>(sysconf(_SC_PAGESIZE));
}
}  // namespace

char* Arena::allocate(size_t bytes) {
  if (bytes > kMostBytes) throw std::bad_alloc();
  const size_t pages = rounded(std::max<size_t>(bytes, 1), kPage);
  char* data = take(pages);
  may_touch(data, bytes, pages);
  return data;
}

char* Arena::take(size_t bytes) {
  auto best = free_.end();
  for (auto at = free_.begin(); at != free_.end(); ++at) {
    if (at->bytes() >= bytes && (best == free_.end() || at->bytes() < best->bytes())) best = at;
  }
  if (best == free_.end()) return grow(bytes);
  if (best->end == reserved_.begin && 2 * bytes <= best->bytes()) {
    // Not the beginning of the last one: what becomes free before it and the rest of it stay one.
    best->end -= bytes;
    return best->end;
  }
  char* data = best->begin;
  best->begin += bytes;
  if (best->begin == best->end) free_.erase(best);
  return data;
}

void Arena::free(char* data, size_t bytes) {
  const size_t pages = rounded(std::max<size_t>(bytes, 1), kPage);
  may_touch(data, 0, pages);
  Stretch given{data, data + pages};
  auto after = std::lower_bound(free_.begin(), free_.end(), data,
                                [](const Stretch& s, const char* to) { return s.begin < to; });
  if (after != free_.end() && after->begin == given.end) {
    given.end = after->end;
    after = free_.erase(after);
  }
  if (after != free_.begin() && (after - 1)->end == given.begin)
    (after - 1)->end = given.end;
  else
    free_.insert(after, given);
}

// What is free before the addresses without memory is part of what is given.
char* Arena::grow(size_t bytes) {
  const auto last = std::find_if(free_.begin(), free_.end(),
                                 [&](const Stretch& s) { return s.end == reserved_.begin; });
  const size_t there = last == free_.end() ? 0 : last->bytes();
  const size_t more = bytes - there;
  if (more > reserved_.bytes()) {
    reserve(bytes);
    return grow(bytes);
  }
  if (mprotect(reserved_.begin, more, PROT_READ | PROT_WRITE) != 0) throw std::bad_alloc();
  char* data = reserved_.begin - there;
  if (there > 0) free_.erase(last);
  reserved_.begin += more;
  held_ += more;
  return data;
}

// As many as there is memory for, or where a limit forbids that (`ulimit -v`) as are needed.
void Arena::reserve(size_t bytes) {
  const size_t least = rounded(bytes, kHugePage) + kHugePage;
  size_t size = std::max(least, memory_of_machine());
  char* found = addresses(size);
  if (found == nullptr) found = addresses(size = least);
  if (found == nullptr) throw std::bad_alloc();
  if (reserved_.bytes() > 0) munmap(reserved_.begin, reserved_.bytes());
  if (huge_pages_) madvise(found, size, MADV_HUGEPAGE);
  const size_t to_page = -reinterpret_cast<uintptr_t>(found) % kHugePage;
  reserved_ = {found + to_page, found + size};
}
}  // namespace ingot::host

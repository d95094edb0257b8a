// What comes next of a weight that is read once, fetched into the L2 cache meanwhile.
//
// Memory is as fast as lines are under way, and the L2 cache's own prefetcher has more of them
// than instructions can: it follows a stream in each of several pages (Intel's optimization
// manual: the streamer). So lines of four pages are fetched side by side; and evenly, a few at a
// time between what is computed, because prefetches in a row are lost.
#pragma once

#include <cstdint>

namespace ingot::INGOT_LEVEL {
namespace {

constexpr int64_t kLineBytes = 64;
constexpr int64_t kFetchBytes = 4 * kLineBytes;

// To be called for each kFetchBytes that are read, one behind the other: fetches a line of each of
// the next four pages. Always inlined: GCC takes a function that only prefetches for one without
// effect, and leaves out its calls.
[[gnu::always_inline]] inline void fetch_ahead(const void* from) {
  constexpr uintptr_t kPage = 4096, kPages = 4 * kPage;
  const uintptr_t at = reinterpret_cast<uintptr_t>(from) + kFetchBytes - 1;
  const uintptr_t line = at % kPages / kFetchBytes * kLineBytes;
  const auto* to = reinterpret_cast<const char*>(at / kPages * kPages + kPages + line);
#pragma GCC unroll 4
  for (uintptr_t page = 0; page < kPages; page += kPage) __builtin_prefetch(to + page, 0, 2);
}

// The same for any number of bytes that are read.
[[gnu::always_inline]] inline void fetch_ahead(const void* from, int64_t bytes) {
  const auto begin = reinterpret_cast<uintptr_t>(from), end = begin + bytes;
  uintptr_t at = (begin + kFetchBytes - 1) / kFetchBytes * kFetchBytes;
  for (; at < end; at += kFetchBytes) fetch_ahead(reinterpret_cast<const void*>(at));
}

}  // namespace
}  // namespace ingot::INGOT_LEVEL

// Who multiplies what: rows are cut into groups, and panels into ranges where there are fewer
// groups than threads. A group and a range are a share. A thread begins with a share of its own:
// what it packed of x is in its caches, and what it fetches ahead it will multiply. What a share
// consists of is taken one by one, so that who is through early can help the others.
#pragma once

#include <omp.h>

#include <cstring>

#include "kept.h"

namespace ingot::INGOT_LEVEL {
namespace {

struct Shares {
  int64_t tiles, panels;  // of rows, however many, and of columns
  int64_t groups, ranges;

  int64_t count() const { return groups * ranges; }
  int64_t first_tile(int64_t share) const { return share / ranges * tiles / groups; }
  int64_t end_tile(int64_t share) const { return (share / ranges + 1) * tiles / groups; }
  int64_t first_panel(int64_t share) const { return share % ranges * panels / ranges; }
  int64_t end_panel(int64_t share) const { return (share % ranges + 1) * panels / ranges; }
};

// For each of so many shares how much of it is taken: nothing. Kept by the calling thread.
inline int64_t* none_taken(int64_t shares) {
  static thread_local Kept<int64_t> space;
  int64_t* taken = grown(space, shares);
  memset(taken, 0, static_cast<size_t>(shares) * sizeof(int64_t));
  return taken;
}

// Calls do_item(share, 0), do_item(share, 1) and so on until it returns false, each once in the
// team, for all shares.
template <typename DoItem>
void take_shares(int64_t* taken, int64_t shares, DoItem do_item) {
  const int64_t own = omp_get_thread_num() * shares / omp_get_num_threads();
  for (int64_t i = own; i < own + shares; i++) {
    int64_t* next = taken + i % shares;
    int64_t item;
    do {
#pragma omp atomic capture
      item = (*next)++;
    } while (do_item(i % shares, item));
  }
}

// Where the share'th of so many stretches of `count` items begins.
inline int64_t stretch_begin(int64_t share, int64_t shares, int64_t count) {
  return share * count / shares;
}

// The same where a share is a stretch of `count` items: calls do_item(item, its stretch's end).
template <typename DoItem>
void take_stretches(int64_t* taken, int64_t shares, int64_t count, DoItem do_item) {
  take_shares(taken, shares, [&](int64_t share, int64_t i) {
    const int64_t item = stretch_begin(share, shares, count) + i;
    const int64_t end = stretch_begin(share + 1, shares, count);
    if (item < end) do_item(item, end);
    return item < end;
  });
}

}  // namespace
}  // namespace ingot::INGOT_LEVEL

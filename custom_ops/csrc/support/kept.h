// Memory that is kept from call to call: a step allocates nothing.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "huge_pages.h"

namespace ingot::INGOT_LEVEL {
namespace {

// On a cache line: a tile's row on two lines would be read twice.
template <typename T>
using Kept = std::vector<T, HugePages<T> >;

// Room for `size` values. What was there is lost where it has to grow.
template <typename T>
T* grown(Kept<T>& space, int64_t size) {
  if (space.size() < static_cast<size_t>(size)) {
    space = {};  // what is there need not be copied
    space.resize(static_cast<size_t>(size));
  }
  return space.data();
}

// The calling thread's, at least `count` of them. What was there may be lost.
template <typename T>
T* kept(int64_t count) {
  static thread_local Kept<T> space;
  return grown(space, count);
}

}  // namespace
}  // namespace ingot::INGOT_LEVEL

// What the linears share, whatever their weights are: the size of a tile, when threads are worth
// it, and memory that is kept.
#pragma once

#include <vector>

#include "vec.h"

namespace ingot::INGOT_LEVEL {
namespace {

constexpr int kTileRows = kLanes == 4 ? 4 : 6;
constexpr int64_t kParallelWork = 1 << 15;  // multiplications worth waking the other threads for

// Vectors of columns that a tile of `rows` rows holds in registers (32 at AVX-512, else 16).
constexpr int tile_vectors(int rows) {
  if (kLanes == 16) return 4;
  return rows == 1 ? 8 : rows == 2 ? 4 : 2;
}

// Room for `size` values. What was there is lost where it has to grow.
template <typename T>
T* grown(std::vector<T>& space, int64_t size) {
  if (space.size() < static_cast<size_t>(size)) {
    space = {};  // what is there need not be copied
    space.resize(static_cast<size_t>(size));
  }
  return space.data();
}

}  // namespace
}  // namespace ingot::INGOT_LEVEL

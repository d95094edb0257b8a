// What the linears share, whatever their weights are: a tile's size, and when threads are worth it.
#pragma once

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

}  // namespace
}  // namespace ingot::INGOT_LEVEL

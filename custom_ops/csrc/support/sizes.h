// Arithmetic of sizes and places that ops share.
#pragma once

#include <cstdint>

namespace ingot::INGOT_LEVEL {
namespace {

constexpr int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }
constexpr int64_t least(int64_t a, int64_t b) { return a < b ? a : b; }
constexpr int64_t most(int64_t a, int64_t b) { return a < b ? b : a; }

// The next multiple of a cache line: a tile's row on two lines would be read twice.
inline uint32_t* aligned(uint32_t* words) {
  return reinterpret_cast<uint32_t*>((reinterpret_cast<uintptr_t>(words) + 63) / 64 * 64);
}

}  // namespace
}  // namespace ingot::INGOT_LEVEL

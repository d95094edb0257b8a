// What the products of linear_w4 and linear_w8 share, whatever their instructions.
#pragma once

#include "fetch_ahead.h"
#include "half.h"
#include "rounded_rows.h"
#include "shares.h"

namespace ingot::INGOT_LEVEL {
namespace {

// A block's scales and, where it has them, zero points as the products want them.
struct BlockHeader {
  alignas(64) float scales[kPanel];
  alignas(64) int32_t zeros[kPanel];

  void read(const QuantisedWeight& weight, const uint8_t* block) {
    fetch_ahead(block, weight.codes_offset);
    if (weight.float_scales) {
      memcpy(scales, block, sizeof(scales));
    } else {
      const auto* from = reinterpret_cast<const Half*>(block);
      for (int64_t i = 0; i < kPanel; i += kLanes) store(scales + i, load_floats(from + i));
    }
    if (!weight.zero_points) return;
    const uint8_t* from = block + weight.zeros_offset();
    for (int64_t i = 0; i < kPanel; i++) zeros[i] = from[i];
  }
};

// The outputs of a unit, from its bias to the last block.
struct Unit {
  const QuantisedLinear& call;
  const Activations& x;
  int64_t panel;
  int64_t row;
  int64_t rows;

  void begin(float* sums, int64_t padded_rows) const {
    const int64_t column = panel * kPanel;
    for (int64_t c = 0; c < kPanel; c++) {
      sums[c] = call.bias != nullptr && column + c < call.columns ? call.bias[column + c] : 0.0f;
    }
    for (int64_t r = 1; r < padded_rows; r++) {
      memcpy(sums + r * kPanel, sums, kPanel * sizeof(float));
    }
  }

  void end(const float* sums) const {
    const int64_t column = panel * kPanel, left = call.columns - column;
    const auto bytes = static_cast<size_t>(left < kPanel ? left : kPanel) * sizeof(float);
    for (int64_t r = 0; r < rows; r++) {
      memcpy(call.out + (row + r) * call.columns + column, sums + r * kPanel, bytes);
    }
  }
};

// Room for x of `rows` rows and `groups` groups of each, on cache lines, kept by the calling
// thread: a step allocates nothing.
template <typename Format>
Activations room(const QuantisedLinear& call, int64_t rows, int64_t groups) {
  static thread_local Kept<uint32_t> space;
  const int64_t words_per_group = call.weight.group_size / kPerWord<Format>;
  uint32_t* words = grown(space, rows * groups * (words_per_group + 2));
  auto* scales = reinterpret_cast<float*>(words + rows * groups * words_per_group);
  auto* offsets = reinterpret_cast<int32_t*>(scales + rows * groups);
  return {words, scales, offsets, words_per_group, groups};
}

}  // namespace
}  // namespace ingot::INGOT_LEVEL

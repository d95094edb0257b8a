// What the products of linear_w4 and linear_w8 share, whatever their instructions.
#pragma once

#include <omp.h>

#include "half.h"
#include "rounded_rows.h"

namespace ingot::INGOT_LEVEL {
namespace {

constexpr int64_t kPrefetchBytes = 8192;  // ahead
constexpr int64_t kLineBytes = 64;

// A block's scales and, where it has them, zero points as the products want them.
struct BlockHeader {
  alignas(64) float scales[kPanel];
  alignas(64) int32_t zeros[kPanel];

  void read(const QuantisedWeight& weight, const uint8_t* block) {
    for (int64_t i = 0; i < weight.codes_offset; i += kLineBytes) {
      __builtin_prefetch(block + i + kPrefetchBytes);
    }
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
  static thread_local std::vector<uint32_t> space;
  const int64_t words_per_group = call.weight.group_size / kPerWord<Format>;
  constexpr int64_t kLineWords = kLineBytes / 4;
  uint32_t* words = grown(space, rows * groups * (words_per_group + 2) + kLineWords);
  words += -reinterpret_cast<uintptr_t>(words) / 4 % kLineWords;
  auto* scales = reinterpret_cast<float*>(words + rows * groups * words_per_group);
  auto* offsets = reinterpret_cast<int32_t*>(scales + rows * groups);
  return {words, scales, offsets, words_per_group, groups};
}

// For each of so many shares of a work how much of it is taken: nothing. Kept by the calling
// thread.
inline int64_t* none_taken(int64_t shares) {
  static thread_local std::vector<int64_t> space;
  int64_t* taken = grown(space, shares);
  memset(taken, 0, static_cast<size_t>(shares) * sizeof(int64_t));
  return taken;
}

// Calls do_item(share, 0), do_item(share, 1) and so on until it returns false, each once in the
// team. A thread begins with a share of its own where it can, and goes on with the others.
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

}  // namespace
}  // namespace ingot::INGOT_LEVEL

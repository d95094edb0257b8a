// x as linear_w4 and linear_w8 multiply it: rounded to integers group by group, in the order in
// which a format's codes meet it.
#pragma once

#include "quantised.h"
#include "quantised_format.h"
#include "tile.h"

namespace ingot::INGOT_LEVEL {
namespace {

// x as integers: words of it, a scale for each row's group (a group of each pass, one after the
// other), and what the zero points add to each sum of products: -(sum of the group's integers),
// times the zero point where all have the same. A row's words lie side by side ("rows"), or tile by
// tile [words][kTileRows].
struct Activations {
  uint32_t* words;
  float* scales;     // [rows][groups] or [tiles][groups][kTileRows]
  int32_t* offsets;  // likewise
  int64_t words_per_group;
  int64_t groups;

  int64_t row_words() const { return words_per_group * groups; }
};

// A group of a tile of rows, one after the other.
struct Rows {
  const uint32_t* words;
  const float* scales;
  const int32_t* offsets;
  int64_t row_words;
  int64_t groups;

  uint32_t word(int row, int64_t i) const { return words[row * row_words + i]; }
  float scale(int row) const { return scales[row * groups]; }
  int32_t offset(int row) const { return offsets[row * groups]; }
};

// The same, packed as a tile.
struct TiledRows {
  const uint32_t* words;
  const float* scales;
  const int32_t* offsets;

  uint32_t word(int row, int64_t i) const { return words[i * kTileRows + row]; }
  float scale(int row) const { return scales[row]; }
  int32_t offset(int row) const { return offsets[row]; }
};

// One group of a row, `count` floats, as integers in Format's order; behind `count` zeros follow up
// to the group's size. Gives the scale and the sum of the integers, and in `rest`, unless it is
// null, what rounding left of x.
template <typename Format>
float round_group(const float* x, int64_t count, int64_t size, uint32_t* words, int32_t* total,
                  float* rest) {
  using Value = typename Format::Value;
  constexpr float kMost = Format::kMost;
  constexpr int64_t kOrdered = kColumnsPerWord<Format>;
  alignas(64) float padded[128];
  if (count < size) {
    memcpy(padded, x, static_cast<size_t>(count) * sizeof(float));
    for (int64_t i = count; i < size; i++) padded[i] = 0.0f;
    x = padded;
  }
  Vec largest = {}, probe = {};  // the probe becomes NaN where a value is not finite
  for (int64_t i = 0; i < size; i += kLanes) {
    const auto values = load<Vec>(x + i);
    largest = larger(values < 0.0f ? -values : values, largest);
    probe += values * 0.0f;
  }
  const float most = largest_lane(largest);
  const bool finite = sum_of_lanes(probe) == 0.0f;
  const float inverse = finite && most >= 0x1p-100f ? kMost / most : 0.0f;
  alignas(64) int32_t rounded[128];
  VecInt sum = {};
  for (int64_t i = 0; i < size; i += kLanes) {
    constexpr float kRound = 12582912.0f;  // 1.5 * 2^23: adding it rounds to an integer
    const Vec scaled = load<Vec>(x + i) * inverse;
    const VecInt value = bit_cast<VecInt>(scaled + kRound) - 0x4b400000;
    const VecInt kept = inverse == 0.0f ? VecInt{} : value;
    store(rounded + i, kept);
    sum += kept;
  }
  auto* values = reinterpret_cast<Value*>(words);
  for (int64_t i = 0; i < size; i += kOrdered) {
#pragma GCC unroll 8
    for (int64_t j = 0; j < kOrdered; j++) {
      values[i + j] = static_cast<Value>(rounded[i + Format::kOrder[j]]);
    }
  }
  alignas(64) int32_t lanes[kLanes];
  store(lanes, sum);
  *total = 0;
  for (int32_t lane : lanes) *total += lane;
  const float unit = inverse == 0.0f ? 0.0f : most * (1.0f / kMost);
  for (int64_t i = 0; rest != nullptr && i < count; i++) {
    rest[i] = x[i] - unit * static_cast<float>(rounded[i]);
  }
  return finite ? unit : __builtin_nanf("");
}

// x[row] as the weight's columns stand, in `space` where it is not so already.
inline const float* arranged_row(const QuantisedLinear& call, int64_t row, float* space) {
  const float* x = call.x + row * call.x_stride;
  if (call.input_perm == nullptr && call.input_scale == nullptr) return x;
  for (int64_t k = 0; k < call.depth; k++) {
    const float value = x[call.input_perm != nullptr ? call.input_perm[k] : k];
    space[k] = call.input_scale != nullptr ? value * call.input_scale[k] : value;
  }
  return space;
}

template <typename Format>
void round_row(const QuantisedLinear& call, int64_t row, float* space, uint32_t* words,
               float* scales, int32_t* offsets) {
  const float* x = arranged_row(call, row, space);
  const int64_t size = call.weight.group_size, words_per_group = size / kPerWord<Format>;
  float rest[128];
  for (int64_t g = 0; g < call.weight.groups; g++) {
    const int64_t left = call.depth - g * size, count = left < size ? left : size;
    const float* from = x + g * size;
    for (int64_t pass = 0; pass < call.passes; pass++, from = rest) {
      const int64_t at = g * call.passes + pass;
      int32_t total;
      scales[at] = round_group<Format>(from, count, size, words + at * words_per_group, &total,
                                       pass + 1 < call.passes ? rest : nullptr);
      offsets[at] = -total * (call.weight.zero_points ? 1 : call.middle);
    }
  }
}

// A tile of rows; those beyond the last are zero.
template <typename Format>
void round_tile(const QuantisedLinear& call, int64_t tile, const Activations& x, float* space) {
  const int64_t all = x.row_words();
  auto* words = reinterpret_cast<uint32_t*>(space + call.depth);
  auto* scales = reinterpret_cast<float*>(words + all);
  auto* offsets = reinterpret_cast<int32_t*>(scales + x.groups);
  for (int64_t r = 0; r < kTileRows; r++) {
    const int64_t row = tile * kTileRows + r;
    if (row < call.rows) {
      round_row<Format>(call, row, space, words, scales, offsets);
    } else {
      memset(words, 0, static_cast<size_t>(all + 2 * x.groups) * 4);
    }
    uint32_t* to = x.words + tile * kTileRows * all + r;
    for (int64_t i = 0; i < all; i++) to[i * kTileRows] = words[i];
    for (int64_t g = 0; g < x.groups; g++) {
      x.scales[(tile * x.groups + g) * kTileRows + r] = scales[g];
      x.offsets[(tile * x.groups + g) * kTileRows + r] = offsets[g];
    }
  }
}

}  // namespace
}  // namespace ingot::INGOT_LEVEL

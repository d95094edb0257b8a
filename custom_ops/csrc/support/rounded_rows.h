// x as linear_w4 and linear_w8 multiply it: rounded to integers group by group, in the order in
// which a format's codes meet it.
#pragma once

#include <type_traits>

#include "quantised.h"
#include "quantised_format.h"
#include "tile.h"

namespace ingot::INGOT_LEVEL {
namespace {

// Sums of products that a group is made of: one for each multiplier.
inline int64_t parts_of(const QuantisedWeight& weight) {
  return weight.multipliers ? kMultipliers : 1;
}

// x as integers, tile by tile of some rows: words of it, a scale for each row's group (a group of
// each pass, one after the other), and what the zero points add to each sum of products: -(sum of
// the part's integers), times the zero point where all have the same.
struct Activations {
  uint32_t* words;
  float* scales;     // [tiles][groups][rows]
  int32_t* offsets;  // [tiles][groups][parts][rows]
  int64_t words_per_group;
  int64_t groups;
  int64_t parts;

  int64_t row_words() const { return words_per_group * groups; }
};

// A group of a tile: words [words_per_group / kTogether][kRows][kTogether], so that what a step
// needs of all rows lies side by side.
template <int kRows, int kTogether>
struct GroupOfRows {
  const uint32_t* words;
  const float* scales;
  const int32_t* offsets;

  GroupOfRows(const Activations& x, int64_t tile, int64_t group) {
    const int64_t first = (tile * x.groups + group) * kRows;
    words = x.words + first * x.words_per_group;
    scales = x.scales + first;
    offsets = x.offsets + first * x.parts;
  }

  // i: a multiple of kTogether; part: less than that.
  uint32_t word(int row, int64_t i, int part) const {
    return words[i * kRows + row * kTogether + part];
  }
  float scale(int row) const { return scales[row]; }
  int32_t offset(int row, int64_t part) const { return offsets[part * kRows + row]; }
};

// A group of a row as integers, up to the group's size.
struct RoundedGroup {
  alignas(64) int32_t values[kMostGroup];
  float scale;

  int32_t total(int64_t begin, int64_t end) const {
    VecInt sum = {};
    for (int64_t i = begin; i < end; i += kLanes) sum += load<VecInt>(values + i);
    return sum_of_lanes(sum);
  }
};

// Without its sign a float's bits are as an integer what it is as a float; infinity is larger than
// all finite values, NaN larger still.
constexpr int32_t kSizeBits = 0x7fffffff, kInfinityBits = 0x7f800000;

// Of floats, of which one's bits are the largest: what they are multiplied by to be rounded to
// integers up to `most` (0 where they count as zero), and the integers' unit. F: float or Vec.
template <typename F>
struct RoundingScale {
  F inverse, scale;

  RoundingScale() = default;
  template <typename Bits>
  RoundingScale(Bits largest_bits, float most) {
    const auto largest = bit_cast<F>(largest_bits);
    const auto finite = largest_bits < kInfinityBits;
    inverse = finite & (largest >= 0x1p-100f) ? most / largest : F{};
    scale = inverse == 0.0f ? F{} : largest * (1.0f / most);
    scale = finite ? scale : scale + __builtin_nanf("");
  }
};

// x times a scale's inverse, rounded.
inline VecInt rounded(Vec x, Vec inverse) {
  constexpr float kRound = 12582912.0f;  // 1.5 * 2^23: adding it rounds to an integer
  const Vec scaled = x * inverse;
  const VecInt value = bit_cast<VecInt>(scaled + kRound) - 0x4b400000;
  return inverse == 0.0f ? VecInt{} : value;
}

// In each lane the largest of some floats without their sign, as bits.
inline VecInt largest_bits(const float* x, int64_t size) {
  VecInt largest = {};
  for (int64_t i = 0; i < size; i += kLanes) {
    largest = larger(load<VecInt>(x + i) & kSizeBits, largest);
  }
  return largest;
}

// Rounds a group to integers up to `most`. `rest`, unless it is null, becomes what that leaves of
// x, and may be x.
inline void round_group(const float* x, int64_t size, float most, float* rest, RoundedGroup* to) {
  const RoundingScale<float> scale(largest_lane(largest_bits(x, size)), most);
  for (int64_t i = 0; i < size; i += kLanes) {
    const auto from = load<Vec>(x + i);
    const VecInt value = rounded(from, broadcast(scale.inverse));
    store(to->values + i, value);
    if (rest != nullptr) {
      store(rest + i, from - scale.scale * __builtin_convertvector(value, Vec));
    }
  }
  to->scale = scale.scale;
}

#if defined(__AVX512F__)
using NarrowBytes = int8_t __attribute__((vector_size(kLanes)));
using NarrowShorts = int16_t __attribute__((vector_size(kLanes * 2)));

// The low bits. GCC 12 makes one move after the other of __builtin_convertvector, and warns of the
// intrinsics without a mask.
inline void narrow(VecInt values, NarrowBytes* to) {
  *to = bit_cast<NarrowBytes>(_mm512_maskz_cvtepi32_epi8(0xffff, bit_cast<__m512i>(values)));
}
inline void narrow(VecInt values, NarrowShorts* to) {
  *to = bit_cast<NarrowShorts>(_mm512_maskz_cvtepi32_epi16(0xffff, bit_cast<__m512i>(values)));
}

// `Value`s of the low bits, each kOrder's columns in that order.
template <typename Value, typename Format>
auto narrow_ordered(VecInt values) {
  constexpr int kOrdered = kColumnsPerWord<Format>;
  std::conditional_t<sizeof(Value) == 1, NarrowBytes, NarrowShorts> order, narrowed;
#pragma GCC unroll 16
  for (int i = 0; i < kLanes; i++) {
    order[i] = static_cast<Value>(i / kOrdered * kOrdered + Format::kOrder[i % kOrdered]);
  }
  narrow(values, &narrowed);
  return __builtin_shuffle(narrowed, order);
}
#endif

// A group's values as `Value`s of their low bits, each kOrder's columns in that order.
template <typename Value, typename Format>
void store_ordered(const int32_t* values, int64_t size, Value* to) {
#if defined(__AVX512F__)
  for (int64_t i = 0; i < size; i += kLanes) {
    store(to + i, narrow_ordered<Value, Format>(load<VecInt>(values + i)));
  }
#else
  constexpr int kOrdered = kColumnsPerWord<Format>;
  for (int64_t i = 0; i < size; i += kOrdered) {
#pragma GCC unroll 8
    for (int64_t j = 0; j < kOrdered; j++) {
      to[i + j] = static_cast<Value>(values[i + Format::kOrder[j]]);
    }
  }
#endif
}

// The columns of a group from x on, in the order in which the weight has them, up to the group's
// size: behind the last column follow zeros. In `space` where they do not lie so already.
inline const float* ordered_group(const QuantisedLinear& call, const float* x, int64_t g,
                                  float* space) {
  const int64_t size = call.weight.group_size, first = g * size, left = call.depth - first;
  // A tile's rows, and their gates, are more streams than the hardware fetches on in.
  constexpr int64_t kAhead = 128, kLine = 16;  // floats
  for (int64_t i = 0; i < size; i += kLine) __builtin_prefetch(x + first + kAhead + i, 0, 2);
  if (call.input_perm == nullptr && left >= size) return x + first;
  for (int64_t i = 0; i < size; i++) {
    const int64_t k = first + i;
    space[i] = i < left ? x[call.input_perm != nullptr ? call.input_perm[k] : k] : 0.0f;
  }
  return space;
}

// A group of x[row] as it is multiplied: in the weight's order, scaled. In `space` where
// it does not lie so already.
inline const float* arranged_group(const QuantisedLinear& call, int64_t row, int64_t g,
                                   float* space) {
  const float* x = call.x + row * call.x_stride;
  const int64_t size = call.weight.group_size, first = g * size, left = call.depth - first;
  const float* from = ordered_group(call, x, g, space);
  if (call.input_scale == nullptr) return from;
  for (int64_t i = 0; i < size && i < left; i++) space[i] = from[i] * call.input_scale[first + i];
  return space;
}

// Rounds a group of a row, for each pass, into tiles of `tile_rows` as GroupOfRows reads them.
template <typename Format, int kTogether>
void round_row_group(const QuantisedLinear& call, int64_t row, int64_t g, int64_t tile_rows,
                     const Activations& x) {
  using Value = typename Format::Value;
  constexpr int64_t kValues = kTogether * kPerWord<Format>;
  const int64_t size = call.weight.group_size, each = size / x.parts;
  const int64_t tile = row / tile_rows, r = row % tile_rows;
  RoundedGroup group;
  alignas(64) float space[kMostGroup];
  alignas(64) Value values[kMostGroup];
  const float* from = arranged_group(call, row, g, space);
  for (int64_t pass = 0; pass < call.passes; pass++, from = space) {
    round_group(from, size, Format::kMost, pass + 1 < call.passes ? space : nullptr, &group);
    store_ordered<Value, Format>(group.values, size, values);
    const int64_t at = tile * x.groups + g * call.passes + pass;
    uint32_t* to = x.words + at * tile_rows * x.words_per_group + r * kTogether;
    for (int64_t i = 0; i < size; i += kValues, to += tile_rows * kTogether) {
      memcpy(to, values + i, sizeof(Value) * kValues);
    }
    x.scales[at * tile_rows + r] = group.scale;
    for (int64_t part = 0; part < x.parts; part++) {
      const int32_t total = group.total(part * each, (part + 1) * each);
      x.offsets[(at * x.parts + part) * tile_rows + r] =
          -total * (call.weight.zero_points ? 1 : call.middle);
    }
  }
}

// A tile of kTileRows rows; those beyond the last are zero.
template <typename Format>
void round_tile(const QuantisedLinear& call, int64_t tile, const Activations& x) {
  const int64_t first = tile * kTileRows, left = call.rows - first;
  if (left < kTileRows) {
    const int64_t groups = x.groups * kTileRows;
    memset(x.words + tile * groups * x.words_per_group, 0, groups * x.words_per_group * 4);
    memset(x.scales + tile * groups, 0, groups * sizeof(float));
    memset(x.offsets + tile * groups * x.parts, 0, groups * x.parts * sizeof(int32_t));
  }
  for (int64_t r = 0; r < kTileRows && r < left; r++) {
    for (int64_t g = 0; g < call.weight.groups; g++) {
      round_row_group<Format, 1>(call, first + r, g, kTileRows, x);
    }
  }
}

}  // namespace
}  // namespace ingot::INGOT_LEVEL

// x as linear_w4 and linear_w8 multiply it: rounded to integers group by group, in the order in
// which a format's codes meet it. activated_linear_w4 and activated_linear_w8 differ from them in
// `arranged_group` alone, which nothing but the rounding reads x by.
#pragma once

#include <type_traits>

#include "activation.h"
#include "quantised.h"
#include "quantised_format.h"
#include "tile.h"

namespace ingot::INGOT_LEVEL {
namespace {

// Sums of products that a group is made of: one for each multiplier.
inline int64_t parts_of(const QuantisedWeight& weight) {
  return weight.multipliers ? kMultipliers : 1;
}

// x as integers: words of it, a scale for each row's group (a group of each pass, one after the
// other), and what the zero points add to each sum of products: -(sum of the part's integers),
// times the zero point where all have the same. A row's words lie side by side ("rows"), or tile by
// tile [words][kTileRows].
struct Activations {
  uint32_t* words;
  float* scales;     // [rows][groups] or [tiles][groups][kTileRows]
  int32_t* offsets;  // [rows][groups][parts] or [tiles][groups][parts][kTileRows]
  int64_t words_per_group;
  int64_t groups;
  int64_t parts;

  int64_t row_words() const { return words_per_group * groups; }
};

// A group of a tile of rows, one after the other.
struct Rows {
  const uint32_t* words;
  const float* scales;
  const int32_t* offsets;
  int64_t row_words;
  int64_t groups;
  int64_t parts;

  uint32_t word(int row, int64_t i) const { return words[row * row_words + i]; }
  float scale(int row) const { return scales[row * groups]; }
  int32_t offset(int row, int64_t part) const { return offsets[row * groups * parts + part]; }
};

// The same, packed as a tile.
struct TiledRows {
  const uint32_t* words;
  const float* scales;
  const int32_t* offsets;

  uint32_t word(int row, int64_t i) const { return words[i * kTileRows + row]; }
  float scale(int row) const { return scales[row]; }
  int32_t offset(int row, int64_t part) const { return offsets[part * kTileRows + row]; }
};

// A group of a row as integers, up to the group's size.
struct RoundedGroup {
  alignas(64) int32_t values[128];
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

// to = function(x), or function(x) * up unless that is null. Not inlined: it is the same code, to
// the bit, whoever rounds.
template <typename Function>
[[gnu::noinline]] void activate_group(Function function, const float* x, const float* up,
                                      int64_t size, float* to) {
  for (int64_t i = 0; i < size; i += kLanes) {
    const Vec value = function(load<Vec>(x + i));
    store(to + i, up != nullptr ? value * load<Vec>(up + i) : value);
  }
}

inline void activate_group(Activation activation, const float* x, const float* up, int64_t size,
                           float* to) {
  if (activation == Activation::kSilu) return activate_group(Silu(), x, up, size, to);
  if (activation == Activation::kGelu) return activate_group(Gelu(), x, up, size, to);
  activate_group(GeluTanh(), x, up, size, to);
}

// A group of x[row] as it is multiplied: activated, in the weight's order, scaled. In `space` where
// it does not lie so already.
inline const float* arranged_group(const QuantisedLinear& call, int64_t row, int64_t g,
                                   float* space) {
  const float* x = call.x + row * call.x_stride;
  const int64_t size = call.weight.group_size, first = g * size, left = call.depth - first;
  const float* from = ordered_group(call, x, g, space);
  if (call.activated.function != Activation::kNone) {
    alignas(64) float up_space[128];
    const float* up =
        call.activated.gated ? ordered_group(call, x + call.depth, g, up_space) : nullptr;
    activate_group(call.activated.function, from, up, size, space);
    from = space;
  }
  if (call.input_scale == nullptr) return from;
  for (int64_t i = 0; i < size && i < left; i++) space[i] = from[i] * call.input_scale[first + i];
  return space;
}

// Rounds a group of a row, for each pass.
template <typename Format>
void round_row_group(const QuantisedLinear& call, int64_t row, int64_t g, uint32_t* words,
                     float* scales, int32_t* offsets) {
  using Value = typename Format::Value;
  const int64_t size = call.weight.group_size, parts = parts_of(call.weight);
  const int64_t each = size / parts;
  RoundedGroup group;
  alignas(64) float space[128];
  const float* from = arranged_group(call, row, g, space);
  for (int64_t pass = 0; pass < call.passes; pass++, from = space) {
    round_group(from, size, Format::kMost, pass + 1 < call.passes ? space : nullptr, &group);
    const int64_t at = g * call.passes + pass;
    auto* to = reinterpret_cast<Value*>(words) + at * size;
    store_ordered<Value, Format>(group.values, size, to);
    scales[at] = group.scale;
    for (int64_t part = 0; part < parts; part++) {
      const int32_t total = group.total(part * each, (part + 1) * each);
      offsets[at * parts + part] = -total * (call.weight.zero_points ? 1 : call.middle);
    }
  }
}

// A tile of rows; those beyond the last are zero. `space`: for a row.
template <typename Format>
void round_tile(const QuantisedLinear& call, int64_t tile, const Activations& x, uint32_t* space) {
  const int64_t all = x.row_words();
  uint32_t* words = space;
  auto* scales = reinterpret_cast<float*>(words + all);
  auto* offsets = reinterpret_cast<int32_t*>(scales + x.groups);
  for (int64_t r = 0; r < kTileRows; r++) {
    const int64_t row = tile * kTileRows + r;
    if (row < call.rows) {
      for (int64_t g = 0; g < call.weight.groups; g++) {
        round_row_group<Format>(call, row, g, words, scales, offsets);
      }
    } else {
      memset(words, 0, static_cast<size_t>(all + x.groups * (1 + x.parts)) * 4);
    }
    uint32_t* to = x.words + tile * kTileRows * all + r;
    for (int64_t i = 0; i < all; i++) to[i * kTileRows] = words[i];
    for (int64_t g = 0; g < x.groups; g++) {
      x.scales[(tile * x.groups + g) * kTileRows + r] = scales[g];
    }
    for (int64_t i = 0; i < x.groups * x.parts; i++) {
      x.offsets[(tile * x.groups * x.parts + i) * kTileRows + r] = offsets[i];
    }
  }
}

}  // namespace
}  // namespace ingot::INGOT_LEVEL

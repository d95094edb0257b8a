// Floats as words of bfloat16, part by part. A float32 is the sum of three bfloat16, 8 bits of its
// significand each (Henry, Tang and Heinecke, arXiv:1904.06376); two are a float32 rounded to 16.
#pragma once

#include <utility>

#include "dot_bf16.h"
#include "parts.h"

namespace ingot::INGOT_LEVEL {
namespace {

// high_halves() of `low` and `high`, in one instruction that does not need the port of those that
// shift and multiply.
inline VecWord shuffle_high_halves(VecWord low, VecWord high) {
#if defined(__AVX512BW__)
  constexpr __mmask64 kLowHalves = 0x3333333333333333;  // the bytes of low halves
  const auto upper = _mm512_set4_epi32(0x00000f0e, 0x00000b0a, 0x00000706, 0x00000302);
  return bit_cast<VecWord>(
      _mm512_mask_shuffle_epi8(bit_cast<__m512i>(high), kLowHalves, bit_cast<__m512i>(low), upper));
#else
  return high_halves(low, high);
#endif
}

// The first parts of low and high, cut off, as the low and high halves of words; they keep what is
// left: nothing of infinity.
inline VecWord take_words(Vec& low, Vec& high) {
  const auto low_bits = bit_cast<VecWord>(low), high_bits = bit_cast<VecWord>(high);
  low = without_part(low, low_bits);
  high = without_part(high, high_bits);
  return shuffle_high_halves(low_bits, high_bits);
}

// The last of kParts parts, of what the others have left: the third holds all of it, a second one
// is rounded.
template <int kParts>
inline VecWord last_words(Vec low, Vec high) {
  if constexpr (kParts < kExactParts) {
    return shuffle_high_halves(rounded_bits(low), rounded_bits(high));
  } else {
    return take_words(low, high);
  }
}

// Calls keep(p, the p'th parts of low and high, as words), the largest first.
template <int kParts, typename Keep>
[[gnu::always_inline]] inline void split(Vec low, Vec high, Keep keep) {
#pragma GCC unroll 2
  for (int p = 0; p < kParts - 1; p++) keep(p, take_words(low, high));
  keep(kParts - 1, last_words<kParts>(low, high));
}

// The values with even and with odd numbers among those of `first` and `last`.
inline std::pair<Vec, Vec> even_and_odd(Vec first, Vec last) {
  const VecInt even = 2 * lane_numbers();
  return {__builtin_shuffle(first, last, even), __builtin_shuffle(first, last, even + 1)};
}

// The same of 32 values that lie side by side, as words of two neighbours.
template <int kParts, typename Keep>
[[gnu::always_inline]] inline void split_neighbours(Vec first, Vec last, Keep keep) {
  if constexpr (kParts == 1) {
    keep(0, to_pairs(first, last));
  } else {
    auto [low, high] = even_and_odd(first, last);
#pragma GCC unroll 2
    for (int p = 0; p < kParts - 1; p++) {
      keep(p, take_words(low, high));
      low = low == low ? low : Vec{};  // infinity leaves nothing
      high = high == high ? high : Vec{};
    }
    keep(kParts - 1, last_words<kParts>(low, high));
  }
}

using Halves = uint16_t __attribute__((vector_size(kLanes * sizeof(uint32_t))));

// Raises `largest` to the halves of `words`, without signs.
inline void raise_halves(Halves& largest, VecWord words) {
  const auto sizes = bit_cast<Halves>(words & 0x7fff7fffu);
  largest = largest > sizes ? largest : sizes;
}

inline bool all_finite(Halves largest) {
  return sum_of_lanes(bit_cast<VecInt>(largest >= 0x7f80) != 0) == 0;
}

}  // namespace
}  // namespace ingot::INGOT_LEVEL

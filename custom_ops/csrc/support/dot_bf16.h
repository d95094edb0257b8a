// Dot products of pairs of bfloat16, at the level that has them (INGOT_BF16). Elsewhere, and there
// too when INGOT_EMULATE_BF16 asks for it, the same in float32 arithmetic: the tests' way to the
// code of that level on a CPU without the instructions.
#pragma once

#include "half.h"

namespace ingot::INGOT_LEVEL {
namespace {

#if defined(INGOT_BF16)
inline constexpr bool kHasDotBf16 = true;
#else
inline constexpr bool kHasDotBf16 = false;
#endif

// sum + a.high * b.high + a.low * b.low, each product added without rounding it first, as
// VDPBF16PS does (Intel SDM, volume 2); that also takes and makes subnormals as zero.
inline Vec dot_pairs(Vec sum, VecWord a, VecWord b) {
#if defined(INGOT_BF16) && !defined(INGOT_EMULATE_BF16)
  const auto x = bit_cast<__m512bh>(a), y = bit_cast<__m512bh>(b);
  return bit_cast<Vec>(_mm512_dpbf16_ps(bit_cast<__m512>(sum), x, y));
#else
  sum += bit_cast<Vec>(a & 0xffff0000u) * bit_cast<Vec>(b & 0xffff0000u);
  return sum + bit_cast<Vec>(a << 16) * bit_cast<Vec>(b << 16);
#endif
}

inline uint32_t to_pair(float low, float high) {
  return from_float<Bfloat>(low).bits | static_cast<uint32_t>(from_float<Bfloat>(high).bits) << 16;
}

// The values of `first`, then of `last`, as words of two neighbours, the first in the low half.
inline VecWord to_pairs(Vec first, Vec last) {
#if defined(INGOT_BF16) && !defined(INGOT_EMULATE_BF16)
  const auto low = bit_cast<__m512>(first), high = bit_cast<__m512>(last);
  return bit_cast<VecWord>(_mm512_cvtne2ps_pbh(high, low));
#else
  VecWord words;
  for (int i = 0; i < kLanes; i += 2) {
    words[i / 2] = to_pair(first[i], first[i + 1]);
    words[(i + kLanes) / 2] = to_pair(last[i], last[i + 1]);
  }
  return words;
#endif
}

// `count` values likewise; 0 after an odd last one.
inline void to_pairs(const float* from, int64_t count, uint32_t* to) {
  int64_t i = 0;
  for (; i + 2 * kLanes <= count; i += 2 * kLanes, to += kLanes) {
    store(to, to_pairs(load<Vec>(from + i), load<Vec>(from + i + kLanes)));
  }
  for (; i + 2 <= count; i += 2) *to++ = to_pair(from[i], from[i + 1]);
  if (i < count) *to = from_float<Bfloat>(from[i]).bits;
}

}  // namespace
}  // namespace ingot::INGOT_LEVEL

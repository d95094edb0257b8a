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

// `count` values as words of two, the first in the low half; 0 after an odd last one.
inline void to_pairs(const float* from, int64_t count, uint32_t* to) {
  int64_t i = 0;
#if defined(INGOT_BF16) && !defined(INGOT_EMULATE_BF16)
  for (; i + 32 <= count; i += 32, to += 16) {
    const auto low = load<__m512>(from + i), high = load<__m512>(from + i + 16);
    store(to, bit_cast<__m512i>(_mm512_cvtne2ps_pbh(high, low)));
  }
#endif
  for (; i + 2 <= count; i += 2) {
    const uint32_t low = from_float<Bfloat>(from[i]).bits;
    *to++ = low | static_cast<uint32_t>(from_float<Bfloat>(from[i + 1]).bits) << 16;
  }
  if (i < count) *to = from_float<Bfloat>(from[i]).bits;
}

}  // namespace
}  // namespace ingot::INGOT_LEVEL

// int8 codes of the KV cache: x = code * scale, one scale for the vector, no zero point.
#pragma once

#include <immintrin.h>

#include "vec.h"

namespace ingot::INGOT_LEVEL {
namespace {

inline float to_float(int8_t code) { return code; }

// The next kLanes codes. GCC 12 would convert a vector of them one by one.
inline Vec load_floats(const int8_t* from) {
#if defined(__AVX512F__)
  const __m512i codes = _mm512_maskz_cvtepi8_epi32(0xffff, load<__m128i>(from));
#elif defined(__AVX2__)
  const __m256i codes = _mm256_cvtepi8_epi32(_mm_cvtsi64_si128(load<int64_t>(from)));
#else
  const __m128i codes = _mm_cvtepi8_epi32(_mm_cvtsi32_si128(load<int32_t>(from)));
#endif
  return __builtin_convertvector(bit_cast<VecInt>(codes), Vec);
}

// Rounds x to codes, to nearest with ties to even, and returns their scale: max |x| / 127, or NaN
// where x has NaN or infinity. Where the scale is 0 or NaN, so are all products with it: the codes
// are 0. A division in each lane and no sum: all levels write the same.
inline float quantise(const float* __restrict x, int64_t count, int8_t* __restrict codes) {
  constexpr int32_t kInfinityBits = 0x7f800000;
  int32_t bits = 0;  // as integers, sizes are in order, and NaN above infinity above the rest
  for (int64_t i = 0; i < count; i++) {
    const int32_t size = bit_cast<int32_t>(x[i]) & 0x7fffffff;
    bits = size > bits ? size : bits;
  }
  const float scale = bits < kInfinityBits ? bit_cast<float>(bits) / 127.0f : __builtin_nanf("");
  if (!(scale > 0.0f)) {
    memset(codes, 0, count);
    return scale;
  }
  for (int64_t i = 0; i < count; i++) {
    const float code = __builtin_rintf(x[i] / scale);  // beyond 127 where the scale is subnormal
    codes[i] = static_cast<int8_t>(code > 127.0f ? 127.0f : code < -127.0f ? -127.0f : code);
  }
  return scale;
}

}  // namespace
}  // namespace ingot::INGOT_LEVEL

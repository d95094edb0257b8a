// float32 to and from the 16-bit floats of the KV cache, rounding to nearest even, NaN kept.
#pragma once

#include "vec.h"

#if defined(__F16C__)
#include <immintrin.h>
#endif

namespace ingot::INGOT_LEVEL {
namespace {

struct Bfloat {
  uint16_t bits;
};
struct Half {
  uint16_t bits;
};

inline float to_float(float value) { return value; }

inline float to_float(Bfloat value) {
  return bit_cast<float>(static_cast<uint32_t>(value.bits) << 16);
}

inline float to_float(Half value) {
#if defined(__F16C__)
  return _cvtsh_ss(value.bits);
#else
  const uint32_t sign = static_cast<uint32_t>(value.bits & 0x8000u) << 16;
  const uint32_t magnitude = static_cast<uint32_t>(value.bits & 0x7fffu) << 13;
  if (magnitude >= 0x7c00u << 13) return bit_cast<float>(sign | magnitude | 0x7f800000u);
  // The exponent's bias differs by 112; the product is exact and makes subnormals normal.
  return bit_cast<float>(sign | bit_cast<uint32_t>(bit_cast<float>(magnitude) * 0x1p112f));
#endif
}

// The next kLanes values.
inline Vec load_floats(const float* from) { return load<Vec>(from); }

// The bits of the next kLanes values, a word each. GCC 12 would convert a vector of them in halves.
inline VecWord load_bits(const Bfloat* from) {
#if defined(__AVX512F__)
  return bit_cast<VecWord>(_mm512_maskz_cvtepu16_epi32(0xffff, load<__m256i>(from)));
#else
  using Bits = uint16_t __attribute__((vector_size(kLanes * sizeof(uint16_t))));
  return __builtin_convertvector(load<Bits>(from), VecWord);
#endif
}

inline Vec load_floats(const Bfloat* from) { return bit_cast<Vec>(load_bits(from) << 16); }

inline Vec load_floats(const Half* from) {
#if defined(__AVX512F__)
  return bit_cast<Vec>(_mm512_maskz_cvtph_ps(0xffff, load<__m256i>(from)));
#elif defined(__F16C__)
  return bit_cast<Vec>(_mm256_cvtph_ps(load<__m128i>(from)));
#else
  Vec values;
  for (int i = 0; i < kLanes; i++) values[i] = to_float(from[i]);
  return values;
#endif
}

template <typename T>
inline T from_float(float value);

template <>
inline float from_float<float>(float value) {
  return value;
}

template <>
inline Bfloat from_float<Bfloat>(float value) {
  const uint32_t bits = bit_cast<uint32_t>(value);
  if (value != value) return {static_cast<uint16_t>(bits >> 16 | 0x40u)};
  return {static_cast<uint16_t>((bits + 0x7fffu + (bits >> 16 & 1u)) >> 16)};
}

template <>
inline Half from_float<Half>(float value) {
#if defined(__F16C__)
  return {static_cast<uint16_t>(_cvtss_sh(value, _MM_FROUND_TO_NEAREST_INT))};
#else
  const uint32_t bits = bit_cast<uint32_t>(value);
  const uint16_t sign = static_cast<uint16_t>(bits >> 16 & 0x8000u);
  const uint32_t magnitude = bits & 0x7fffffffu;
  if (magnitude > 0x7f800000u) return {static_cast<uint16_t>(sign | 0x7e00u)};
  if (magnitude >= 0x477ff000u) return {static_cast<uint16_t>(sign | 0x7c00u)};  // rounds to 2^16
  if (magnitude < 0x38800000u) {  // subnormal: adding 0.5 rounds to a multiple of 2^-24
    const float rounded = bit_cast<float>(magnitude) + 0.5f;
    return {static_cast<uint16_t>(sign | (bit_cast<uint32_t>(rounded) - 0x3f000000u))};
  }
  const uint32_t rounded = magnitude + 0xfffu + (magnitude >> 13 & 1u);
  return {static_cast<uint16_t>(sign | ((rounded - (112u << 23)) >> 13))};
#endif
}

}  // namespace
}  // namespace ingot::INGOT_LEVEL

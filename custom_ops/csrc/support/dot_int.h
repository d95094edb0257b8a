// Dot products of integers: unsigned codes of a weight with signed activations, summed exactly in
// 32 bits. A 32-bit word holds 4 of 8 bits, or 2 of 16.
#pragma once

#include <immintrin.h>

#include "vec.h"

namespace ingot::INGOT_LEVEL {
namespace {

#if defined(INGOT_BF16)
inline constexpr bool kHasVnni = true;  // that level has AVX512_VNNI too
#else
inline constexpr bool kHasVnni = false;
#endif

// Products of neighbouring 16-bit integers, added in pairs.
inline VecInt multiply_pairs(VecInt a, VecInt b) {
#if defined(__AVX512F__)
  return bit_cast<VecInt>(_mm512_madd_epi16(bit_cast<__m512i>(a), bit_cast<__m512i>(b)));
#elif defined(__AVX2__)
  return bit_cast<VecInt>(_mm256_madd_epi16(bit_cast<__m256i>(a), bit_cast<__m256i>(b)));
#else
  return bit_cast<VecInt>(_mm_madd_epi16(bit_cast<__m128i>(a), bit_cast<__m128i>(b)));
#endif
}

// sum + products of unsigned and signed bytes, added in pairs: 16-bit integers, which must hold
// them. In assembly, because GCC keeps many products at once and runs out of registers.
inline VecInt add_byte_pairs(VecInt sum, VecInt codes, VecInt x) {
#if defined(__AVX2__)
  VecInt products;
  __asm__(
      "vpmaddubsw %3, %2, %1\n\t"
      "vpaddw %1, %0, %0"
      : "+v"(sum), "=&v"(products)
      : "v"(codes), "v"(x));
  return sum;
#else
  using Halves = int16_t __attribute__((vector_size(sizeof(VecInt))));
  const __m128i products = _mm_maddubs_epi16(bit_cast<__m128i>(codes), bit_cast<__m128i>(x));
  return bit_cast<VecInt>(bit_cast<Halves>(sum) + bit_cast<Halves>(products));
#endif
}

// sum + four products of bytes. GCC copies registers around the intrinsic, hence the assembly.
inline VecInt dot_bytes(VecInt sum, VecInt codes, VecInt x) {
#if defined(INGOT_BF16) && !defined(INGOT_EMULATE_BF16)
  __asm__("vpdpbusd %2, %1, %0" : "+v"(sum) : "v"(codes), "v"(x));
  return sum;
#else
  const VecInt even = ((x << 24 >> 24) & 0xffff) | (x << 8 >> 24 << 16);
  const VecInt odd = ((x << 16 >> 24) & 0xffff) | (x >> 24 << 16);
  sum += multiply_pairs(codes & 0x00ff00ff, even);
  return sum + multiply_pairs((codes >> 8) & 0x00ff00ff, odd);
#endif
}

// sum + two products of 16-bit integers.
inline VecInt dot_pairs_of_16(VecInt sum, VecInt codes, VecInt x) {
#if defined(INGOT_BF16) && !defined(INGOT_EMULATE_BF16)
  __asm__("vpdpwssd %2, %1, %0" : "+v"(sum) : "v"(codes), "v"(x));
  return sum;
#else
  return sum + multiply_pairs(codes, x);
#endif
}

}  // namespace
}  // namespace ingot::INGOT_LEVEL

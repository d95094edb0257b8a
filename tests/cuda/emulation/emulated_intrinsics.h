// custom_ops/cuda/support/intrinsics.h for the emulation: the same functions on a CPU.
#pragma once

#include "cuda_emulation.h"

namespace ingot::cuda {

struct Half {
  uint16_t bits;
};
struct Bfloat {
  uint16_t bits;
};

inline float as_float(uint32_t bits) {
  float x;
  memcpy(&x, &bits, 4);
  return x;
}
inline uint32_t as_bits(float x) {
  uint32_t bits;
  memcpy(&bits, &x, 4);
  return bits;
}

inline float to_float(float x) { return x; }
inline float to_float(Bfloat x) { return as_float(static_cast<uint32_t>(x.bits) << 16); }
inline float to_float(Half x) {
  const uint32_t sign = static_cast<uint32_t>(x.bits & 0x8000u) << 16;
  const uint32_t magnitude = static_cast<uint32_t>(x.bits & 0x7fffu) << 13;
  if (magnitude >= 0x7c00u << 13) return as_float(sign | magnitude | 0x7f800000u);
  // The exponent's bias differs by 112; the product is exact and makes subnormals normal.
  return as_float(sign | as_bits(as_float(magnitude) * 0x1p112f));
}

inline Bfloat to_bfloat(float x) {
  const uint32_t bits = as_bits(x);
  if (x != x) return {static_cast<uint16_t>(bits >> 16 | 0x40)};
  return {static_cast<uint16_t>((bits + 0x7fff + (bits >> 16 & 1)) >> 16)};
}
inline Half to_half(float x) {
  const auto sign = static_cast<uint16_t>(as_bits(x) >> 16 & 0x8000u);
  const float magnitude = std::fabs(x);
  if (x != x) return {static_cast<uint16_t>(sign | 0x7e00u)};
  if (magnitude >= 65520.0f) return {static_cast<uint16_t>(sign | 0x7c00u)};
  if (magnitude < 0x1p-14f) {  // subnormal: a multiple of 2^-24
    return {
        static_cast<uint16_t>(sign | static_cast<uint16_t>(std::nearbyint(magnitude * 0x1p24f)))};
  }
  const uint32_t bits = as_bits(magnitude) - (112u << 23);
  return {static_cast<uint16_t>(sign | (bits + 0xfff + (bits >> 13 & 1)) >> 13)};
}

struct HalfPairs {};
struct BfloatPairs {};

inline uint32_t both(uint16_t low, uint16_t high) {
  return low | static_cast<uint32_t>(high) << 16;
}
inline uint32_t pack(HalfPairs, float low, float high) {
  return both(to_half(low).bits, to_half(high).bits);
}
inline uint32_t pack(BfloatPairs, float low, float high) {
  return both(to_bfloat(low).bits, to_bfloat(high).bits);
}
inline float half_of(HalfPairs, uint32_t pair, int i) {
  return to_float(Half{static_cast<uint16_t>(pair >> 16 * i)});
}
inline float half_of(BfloatPairs, uint32_t pair, int i) {
  return to_float(Bfloat{static_cast<uint16_t>(pair >> 16 * i)});
}

inline float product(float a, float b) {
  float value = a * b;
  asm("" : "+x"(value));  // else the compiler may fuse it with a sum
  return value;
}
inline float sum(float a, float b) { return a + b; }
inline float quotient(float a, float b) { return a / b; }

inline uint32_t add_bfloats(uint32_t a, uint32_t b) {
  const auto sum = [&](int i) {
    return half_of(BfloatPairs(), a, i) + half_of(BfloatPairs(), b, i);
  };
  return pack(BfloatPairs(), sum(0), sum(1));
}
inline uint32_t select_bytes(uint32_t a, uint32_t b, uint32_t selector) {
  const uint64_t bytes = a | static_cast<uint64_t>(b) << 32;
  uint32_t result = 0;
  for (int i = 0; i < 4; i++) {
    result |= static_cast<uint32_t>(bytes >> 8 * (selector >> 4 * i & 7) & 0xff) << 8 * i;
  }
  return result;
}

template <typename Pairs>
void mma(Pairs pairs, float (&c)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
  const emulation::Given given{
      emulation::Collective::multiply, {a[0], a[1], a[2], a[3], b0, b1}, nullptr};
  const emulation::Given* all = emulation::exchange(given);
  const int lane = static_cast<int>(threadIdx.x & 31);
  for (int i = 0; i < 4; i++) {
    const int row = lane / 4 + i / 2 * 8, column = lane % 4 * 2 + i % 2;
    float sum = 0;
    for (int k = 0; k < 16; k++) {
      const uint32_t left = all[row % 8 * 4 + k % 8 / 2].words[row / 8 + k / 8 * 2];
      const uint32_t right = all[column * 4 + k % 8 / 2].words[4 + k / 8];
      sum += half_of(pairs, left, k % 2) * half_of(pairs, right, k % 2);
    }
    c[i] += sum;
  }
}

inline const emulation::Given* exchange_rows(const void* row) {
  emulation::expect_shared(row);
  return emulation::exchange({emulation::Collective::load_matrices, {}, row});
}
inline void load_matrices(uint32_t (&to)[4], const void* row) {
  const emulation::Given* all = exchange_rows(row);
  const int lane = static_cast<int>(threadIdx.x & 31);
  for (int i = 0; i < 4; i++) {
    memcpy(&to[i], static_cast<const uint32_t*>(all[8 * i + lane / 4].address) + lane % 4, 4);
  }
}
inline void load_matrices_transposed(uint32_t (&to)[4], const void* row) {
  const emulation::Given* all = exchange_rows(row);
  const int lane = static_cast<int>(threadIdx.x & 31);
  const auto value = [&](int matrix, int line, int column) {
    uint16_t bits;
    memcpy(&bits, static_cast<const uint16_t*>(all[8 * matrix + line].address) + column, 2);
    return bits;
  };
  for (int i = 0; i < 4; i++) {
    to[i] = both(value(i, lane % 4 * 2, lane / 4), value(i, lane % 4 * 2 + 1, lane / 4));
  }
}

inline void copy_async(void* shared, const void* global, int bytes = 16) {
  emulation::copy_later(shared, global, bytes, 16 - bytes);
}
inline void commit_copies() { emulation::commit_copies(); }
template <int Left>
void wait_copies() {
  emulation::wait_copies(Left);
}

inline uint4 load_once(const uint4* from) { return *from; }
inline float exp2_fast(float x) { return std::exp2(x); }
inline float quotient_fast(float a, float b) { return a / b; }
inline void* dynamic_shared() { return emulation::dynamic_shared(); }

}  // namespace ingot::cuda

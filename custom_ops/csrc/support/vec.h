// Vectors of the level's register width, in GCC's vector extensions: arithmetic is written with
// operators, `mask ? a : b` selects lanes. Internal linkage: each level compiles its own.
#pragma once

#include <cstdint>
#include <cstring>
#include <type_traits>

#if defined(__AVX512F__)
#include <immintrin.h>
#endif

namespace ingot::INGOT_LEVEL {
namespace {

#if defined(__AVX512F__)
inline constexpr int kLanes = 16;
#elif defined(__AVX2__)
inline constexpr int kLanes = 8;
#else
inline constexpr int kLanes = 4;
#endif

using Vec = float __attribute__((vector_size(kLanes * sizeof(float))));
using VecInt = int32_t __attribute__((vector_size(kLanes * sizeof(int32_t))));
using VecWord = uint32_t __attribute__((vector_size(kLanes * sizeof(uint32_t))));

template <typename V, typename T>
inline V load(const T* from) {
  V vector;
  memcpy(&vector, from, sizeof(vector));
  return vector;
}

template <typename V, typename T>
inline void store(T* to, V vector) {
  memcpy(to, &vector, sizeof(vector));
}

template <typename To, typename From>
inline To bit_cast(From from) {
  static_assert(sizeof(To) == sizeof(From));
  To to;
  memcpy(&to, &from, sizeof(to));
  return to;
}

// Past the caches, where the level has whole cache lines; a fence belongs behind it.
inline void store_far(float* to, Vec vector) {
#if defined(__AVX512F__)
  _mm512_stream_ps(to, bit_cast<__m512>(vector));
#else
  store(to, vector);
#endif
}

inline Vec broadcast(float value) { return value - Vec{}; }

inline VecInt lane_numbers() {
  VecInt numbers;
  for (int i = 0; i < kLanes; i++) numbers[i] = i;
  return numbers;
}

// The larger lanes; b's where one is NaN.
template <typename V>
inline V larger(V a, V b) {
#if defined(__AVX512F__)
  if constexpr (std::is_same_v<V, Vec>) {  // GCC 12 would compare and select
    return bit_cast<Vec>(_mm512_maskz_max_ps(0xffff, bit_cast<__m512>(a), bit_cast<__m512>(b)));
  }
#endif
  return a > b ? a : b;
}

// Whether a lane of a is larger than b's.
inline bool any_above(Vec a, Vec b) {
#if defined(__AVX512F__)
  return _mm512_cmp_ps_mask(bit_cast<__m512>(a), bit_cast<__m512>(b), _CMP_GT_OQ) != 0;
#else
  const VecInt above = a > b;
  int any = 0;
  for (int i = 0; i < kLanes; i++) any |= above[i];
  return any != 0;
#endif
}

// Whether one of `bits` is set in a lane.
inline bool any_set(VecWord words, uint32_t bits) {
#if defined(__AVX512F__)
  const auto mask = _mm512_set1_epi32(static_cast<int>(bits));
  return _mm512_test_epi32_mask(bit_cast<__m512i>(words), mask) != 0;
#else
  uint32_t any = 0;
  for (int i = 0; i < kLanes; i++) any |= words[i];
  return (any & bits) != 0;
#endif
}

// a0 b0 a1 b1 ... of the lower halves of a and b, or of the upper.
template <bool kUpper, typename V>
inline V interleave(V a, V b) {
  const VecInt lanes = lane_numbers();
  return __builtin_shuffle(a, b, lanes / 2 + lanes % 2 * kLanes + kUpper * (kLanes / 2));
}

// rows[i][j] becomes rows[j][i]: interleaving the upper with the lower half of the rows moves the
// highest bit of the row's number to the lowest of the lane's.
inline void transpose(Vec (&rows)[kLanes]) {
#pragma GCC unroll 4
  for (int bit = 1; bit < kLanes; bit *= 2) {
    Vec next[kLanes];
#pragma GCC unroll 8
    for (int i = 0; i < kLanes / 2; i++) {
      next[2 * i] = interleave<false>(rows[i], rows[i + kLanes / 2]);
      next[2 * i + 1] = interleave<true>(rows[i], rows[i + kLanes / 2]);
    }
#pragma GCC unroll 16
    for (int i = 0; i < kLanes; i++) rows[i] = next[i];
  }
}

// Lane i of the result is lane i + half of `v`, for i < half.
template <int kHalf, typename V>
inline V upper(V v) {
  return __builtin_shuffle(v, (lane_numbers() + kHalf) % kLanes);
}

template <int kHalf = kLanes / 2, typename V>
inline auto sum_of_lanes(V v) {
  if constexpr (kHalf == 0)
    return v[0];
  else
    return sum_of_lanes<kHalf / 2>(v + upper<kHalf>(v));
}

// The largest lane, if none is NaN.
template <int kHalf = kLanes / 2, typename V>
inline auto largest_lane(V v) {
  if constexpr (kHalf == 0)
    return v[0];
  else
    return largest_lane<kHalf / 2>(larger(v, upper<kHalf>(v)));
}

// Lane i of the result is what `combine` makes of the lanes of rows[i]: each round halves the rows,
// as transpose() moves them into lanes.
template <typename V, typename Combine>
inline V combine_lanes(V (&rows)[kLanes], Combine combine) {
#pragma GCC unroll 4
  for (int half = kLanes / 2; half > 0; half /= 2) {
#pragma GCC unroll 8
    for (int i = 0; i < half; i++) {
      rows[i] = combine(interleave<false>(rows[i], rows[i + half]),
                        interleave<true>(rows[i], rows[i + half]));
    }
  }
  return rows[0];
}

// Lane i of the result is the largest lane of rows[i], if none is NaN.
template <typename V>
inline V largest_lanes(V (&rows)[kLanes]) {
  return combine_lanes(rows, [](V a, V b) { return larger(a, b); });
}

// Lane i of the result is the sum of the lanes of rows[i].
template <typename V>
inline V sums_of_lanes(V (&rows)[kLanes]) {
  return combine_lanes(rows, [](V a, V b) { return a + b; });
}

// 2^r for |r| <= 1/2: a polynomial of least relative error (2e-9) that is 1 at 0.
inline Vec exp2_near_zero(Vec r) {
  Vec p = r * 1.5353361917e-4f + 1.3398874414e-3f;
  p = p * r + 9.6184373576e-3f;
  p = p * r + 5.5503324711e-2f;
  p = p * r + 2.4022647914e-1f;
  p = p * r + 6.9314720286e-1f;
  return p * r + 1.0f;
}

// e^x for x <= 0 (and NaN, which stays NaN), within two units in the last place; 0 for x < -87,
// where normal floats end. e^x = 2^n 2^r with |r| <= 1/2: 2^n from the exponent's bits.
inline Vec exp_negative(Vec x) {
  constexpr float kLog2E = 1.44269504088896341f;
  constexpr float kRound = 12582912.0f;  // 1.5 * 2^23: adding it rounds to an integer
  const Vec shifted = x * kLog2E + kRound;
  const Vec p = exp2_near_zero(x * kLog2E - (shifted - kRound));
  const Vec result = p * bit_cast<Vec>((bit_cast<VecWord>(shifted) << 23) + 0x3f800000);
  return x < -87.0f ? Vec{} : result;
}

// 2^x in two halves, so that what x is can be told between them. The first rounds x: to a multiple
// of 1/16 where 2^(j/16) is one of the 16 lanes of a register, else to an integer. `kToPower` has
// such an ulp, and the sum's bits count them, from x = -kLeastPower on.
inline constexpr float kLeastPower = 120.0f;
inline constexpr float kRoundPower = kLanes == 16 ? 786432.0f : 12582912.0f;  // 1.5 * 2^19 or 2^23
inline constexpr float kToPower = kRoundPower + kLeastPower;
inline Vec round_power(Vec x) { return x + kToPower; }

// Bits of such a sum; those of kFarPower are set if x, rounded, lies outside [-kLeastPower, 8).
inline VecWord power_range(Vec rounded) {
  return bit_cast<VecWord>(rounded) ^ bit_cast<VecWord>(broadcast(kRoundPower));
}
inline constexpr uint32_t kFarPower = ~uint32_t{0} << (kLanes == 16 ? 11 : 7);

// The second: 2^x = 2^n 2^(j/16) 2^r with |r| <= 1/32 and 2^r - 1 to 2^-30, where n and j are the
// integer that 16 x rounds to and what is looked up has j, which is added to it beside n, taken
// from it; or 2^n 2^r with |r| <= 1/2.
inline Vec exp2_of_rounded(Vec x, Vec rounded) {
  constexpr uint32_t kOffset = static_cast<uint32_t>(kLeastPower) << 23;
  const VecWord bits = bit_cast<VecWord>(rounded);
#if defined(__AVX512DQ__)
  constexpr int kSixteenths = 4 << 4;  // fraction bits of what is subtracted, rounded likewise
  const auto r = bit_cast<Vec>(_mm512_reduce_ps(bit_cast<__m512>(x), kSixteenths));
  constexpr VecWord kPowers = {0x3f800000, 0x3f7daac3, 0x3f7b95c2, 0x3f79c3d3,
                               0x3f7837f0, 0x3f76f532, 0x3f75fed7, 0x3f75583f,
                               0x3f7504f3, 0x3f7508a4, 0x3f75672a, 0x3f76248c,
                               0x3f7744fd, 0x3f78ccdf, 0x3f7ac0c7, 0x3f7d257d};
  const VecWord looked_up = __builtin_shuffle(kPowers - kOffset, bits);
  const Vec power = bit_cast<Vec>(looked_up + (bits << 19));
  Vec p = r * 5.5505737662e-02f + 2.4023433030e-01f;
  p = p * r + 6.9314718246e-01f;
  return p * r * power + power;
#else
  const Vec r = x - (rounded - kToPower);
  return exp2_near_zero(r) * bit_cast<Vec>((bits << 23) + (0x3f800000 - kOffset));
#endif
}

// 2^x for x < 127 (and NaN, which stays NaN), likewise; 0 for x <= -127.
inline Vec exp2(Vec x) {
  x = larger(broadcast(-127.0f), x);
  return exp2_of_rounded(x, round_power(x));
}

// tanh x, to a few units in the last place: by e^-2|x|, and near 0, where that loses digits, by
// the series up to x^11.
inline Vec tanh(Vec x) {
  const Vec size = x < 0.0f ? -x : x;
  const Vec e = exp_negative(size * -2.0f);
  const Vec far = (1.0f - e) / (1.0f + e);
  const Vec x2 = x * x;
  Vec p = x2 * (-1382.0f / 155925) + 62.0f / 2835;
  p = p * x2 - 17.0f / 315;
  p = p * x2 + 2.0f / 15;
  p = p * x2 - 1.0f / 3;
  const Vec near = x + x * x2 * p;
  return size < 0.25f ? near : x < 0.0f ? -far : far;
}

}  // namespace
}  // namespace ingot::INGOT_LEVEL

// The activations of an MLP, of vectors: x times how much of it passes. None overflows on the way:
// the exponent is never above 0. A NaN stays one, and -infinity times the 0 that passes becomes
// one, as in the formulas.
#pragma once

#include "vec.h"

namespace ingot::INGOT_LEVEL {
namespace {

// 1 / x for 1 <= x <= 2 (and NaN, which stays NaN), within one unit in the last place. A division
// takes a core 16 cycles, as long as all else of a sigmoid.
inline Vec reciprocal(Vec x) {
#if defined(__AVX512F__)
  const Vec near = bit_cast<Vec>(_mm512_maskz_rcp14_ps(0xffff, bit_cast<__m512>(x)));
  return near * (1.0f - x * near) + near;
#else
  return 1.0f / x;
#endif
}

// 1 / (1 + e^-x), within four units in the last place where that is 0.02 and more; 0 for x < -88.
inline Vec sigmoid(Vec x) {
  constexpr float kLog2E = 1.44269504088896341f;
  const Vec size = bit_cast<Vec>(bit_cast<VecWord>(x) & 0x7fffffffu);
  const Vec e = exp2(size * -kLog2E);
  return (x < 0.0f ? e : broadcast(1.0f)) * reciprocal(1.0f + e);
}

struct Silu {
  Vec operator()(Vec x) const { return x * sigmoid(x); }
};

// x / 2 * (1 + tanh(sqrt(2 / pi) (x + 0.044715 x^3))) (Hendrycks and Gimpel 2016), by
// (1 + tanh y) / 2 = sigmoid(2 y).
struct GeluTanh {
  Vec operator()(Vec x) const {
    constexpr float kTwice = 1.5957691216f;  // 2 sqrt(2 / pi)
    return x * sigmoid((x * x * (0.044715f * kTwice) + kTwice) * x);
  }
};

// x / 2 * (1 + erf(x / sqrt 2)). 2^q(|x|) is what of a normal distribution lies beyond |x|: less
// than 1e-8 beyond 4 sqrt 2, where it counts as 0. q is a polynomial whose error, relative to 0.02
// more than that, is least (1e-7). erf itself would need a second one, near 0.
struct Gelu {
  Vec operator()(Vec x) const {
    const Vec size = bit_cast<Vec>(bit_cast<VecWord>(x) & 0x7fffffffu);
    Vec q = size * -1.86954253e-6f + 2.77117324e-5f;
    q = q * size - 1.30374727e-4f;
    q = q * size - 2.72102538e-4f;
    q = q * size + 7.2391429e-3f;
    q = q * size - 5.26154749e-2f;
    q = q * size - 0.459170699f;
    q = q * size - 1.1511091f;
    q = q * size - 1.0f;
    const Vec beyond = size < 5.65685425f ? exp2_of_rounded(q, round_power(q)) : Vec{};
    return x * (x < 0.0f ? beyond : 1.0f - beyond);
  }
};

}  // namespace
}  // namespace ingot::INGOT_LEVEL

// The activations of an MLP, of vectors: x times how much of it passes. None overflows on the way:
// the exponent is never above 0. A NaN stays one, and -infinity times the 0 that passes becomes
// one, as in the formulas.
#pragma once

#include "vec.h"

namespace ingot::INGOT_LEVEL {
namespace {

// 1 / (1 + e^-x), within four units in the last place; 0 for x < -87.
inline Vec sigmoid(Vec x) {
  const Vec e = exp_negative(x < 0.0f ? x : -x);
  return (x < 0.0f ? e : broadcast(1.0f)) / (1.0f + e);
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

// x / 2 * (1 + erf(x / sqrt 2)). With y = |x| / sqrt 2, erf(y) = y + y p(y^2) up to 1, and above it
// 1 - 2^q(y) (the polynomials of export/include/ingot/erf.h), which beyond 4 is 1.
struct Gelu {
  Vec operator()(Vec x) const {
    const Vec y = (x < 0.0f ? -x : x) * 0.70710678f;
    const Vec y2 = y * y;
    Vec p = y2 * -0.000563142181f + 0.0049175513f;
    p = p * y2 - 0.0267113112f;
    p = p * y2 + 0.112801798f;
    p = p * y2 - 0.37612325f;
    p = p * y2 + 0.128379121f;
    const Vec near = (y + y * p) * 0.5f;
    Vec q = y * -0.00165970426f + 0.0213202909f;
    q = q * y - 0.12787199f;
    q = q * y - 0.944228113f;
    q = q * y - 1.61212289f;
    q = q * y - 0.00385447615f;
    const Vec tail = y < 4.0f ? exp2(q) * 0.5f : Vec{};
    const Vec beyond = y < 1.0f ? 0.5f - near : tail;  // what of a normal lies above |x|
    return x * (x < 0.0f ? beyond : 1.0f - beyond);
  }
};

}  // namespace
}  // namespace ingot::INGOT_LEVEL

// erf of generated kernels. That of torch's vectors is right to 1.5e-7 (Abramowitz and Stegun 1964,
// 7.1.26), near zero to no digit, and calls a library for its exponential.
#pragma once

#include <torch/csrc/inductor/cpp_prefix.h>

#include <cstddef>
#include <cstdint>
#include <type_traits>

namespace ingot {

// Of other types than float, torch's own.
template <typename Vector>
Vector erf(const Vector& x) {
  return x.erf();
}

#if defined(CPU_CAPABILITY_AVX2) || defined(CPU_CAPABILITY_AVX512)
using Floats = at::vec::Vectorized<float>;

// Its coefficients in ascending order.
template <size_t n>
inline Floats polynomial(const float (&coefficients)[n], const Floats& x) {
  Floats sum(coefficients[n - 1]);
  for (size_t i = n - 1; i-- > 0;) sum = at::vec::fmadd(sum, x, Floats(coefficients[i]));
  return sum;
}

// 2^x for x from -126 to 0. What is added to 1.5 * 2^23 is rounded to an integer, which then is in
// the sum's lowest bits.
inline Floats exp2_negative(const Floats& x) {
  typedef uint32_t Words __attribute__((vector_size(sizeof(Floats))));
  using Raw = std::conditional_t<sizeof(Floats) == 64, __m512, __m256>;
  static constexpr float kPower[] = {1.0f,          0.693147004f,   0.240222424f,
                                     0.0555073358f, 0.00967151299f, 0.00132647273f};
  const Floats shift(0x1.8p23f), shifted = x + shift;
  const Floats power = polynomial(kPower, x - (shifted - shift));
  return Floats(Raw(Words(Raw(power)) + (Words(Raw(shifted)) << 23)));
}

// At most 2 ulp from erf: minimax polynomials of erf(x) / x - 1 over x^2, where x is at most 1,
// and above it of log2(erfc(x)), up to 4, where erf is 1.
inline Floats erf(const Floats& x) {
  static constexpr float kSmall[] = {0.128379121f,   -0.37612325f,  0.112801798f,
                                     -0.0267113112f, 0.0049175513f, -0.000563142181f};
  static constexpr float kLarge[] = {-0.00385447615f, -1.61212289f,  -0.944228113f,
                                     -0.12787199f,    0.0213202909f, -0.00165970426f};
  const Floats one(1.0f), size = x.abs();
  const Floats small = at::vec::fmadd(polynomial(kSmall, x * x), x, x);
  const Floats rest = exp2_negative(polynomial(kLarge, at::vec::clamp_max(size, Floats(4.0f))));
  const Floats large = (one - rest) | (x & Floats(-0.0f));
  return Floats::blendv(small, large, size > one);
}
#endif

}  // namespace ingot

// The vector mathematics that generated code calls by Sleef's names: eight lanes for AVX2, sixteen
// for AVX-512. glibc's libmvec computes them (at most 4 ulp); what it lacks goes lane by lane
// through libm.
#include <immintrin.h>

#include <cmath>

#define MATH extern "C" __attribute__((visibility("default")))
#define AVX2 __attribute__((target("avx2,fma")))
#define AVX512 __attribute__((target("avx512f,avx512dq,avx512vl,avx512bw,fma")))

#define LIBMVEC_1(f)                           \
  extern "C" AVX2 __m256 _ZGVdN8v_##f(__m256); \
  extern "C" AVX512 __m512 _ZGVeN16v_##f(__m512);
#define LIBMVEC_2(f)                                    \
  extern "C" AVX2 __m256 _ZGVdN8vv_##f(__m256, __m256); \
  extern "C" AVX512 __m512 _ZGVeN16vv_##f(__m512, __m512);

// f's vector forms under the names Sleef_<f>8_<ulp> and Sleef_<f>16_<ulp>.
#define VECTOR_1(f, ulp)                                                    \
  LIBMVEC_1(f)                                                              \
  MATH AVX2 __m256 Sleef_##f##8_##ulp(__m256 x) { return _ZGVdN8v_##f(x); } \
  MATH AVX512 __m512 Sleef_##f##16_##ulp(__m512 x) { return _ZGVeN16v_##f(x); }
#define VECTOR_2(f, ulp)                                                                  \
  LIBMVEC_2(f)                                                                            \
  MATH AVX2 __m256 Sleef_##f##8_##ulp(__m256 x, __m256 y) { return _ZGVdN8vv_##f(x, y); } \
  MATH AVX512 __m512 Sleef_##f##16_##ulp(__m512 x, __m512 y) { return _ZGVeN16vv_##f(x, y); }

VECTOR_1(acosf, u10)
VECTOR_1(acoshf, u10)
VECTOR_1(asinf, u10)
VECTOR_1(asinhf, u10)
VECTOR_1(atanf, u10)
VECTOR_1(atanhf, u10)
VECTOR_1(cosf, u35)
VECTOR_1(coshf, u10)
VECTOR_1(erff, u10)
VECTOR_1(erfcf, u15)
VECTOR_1(expf, u10)
VECTOR_1(exp2f, u10)
VECTOR_1(expm1f, u10)
VECTOR_1(logf, u10)
VECTOR_1(log10f, u10)
VECTOR_1(log1pf, u10)
VECTOR_1(log2f, u10)
VECTOR_1(sinf, u35)
VECTOR_1(sinhf, u10)
VECTOR_1(tanf, u10)
VECTOR_1(tanhf, u10)
VECTOR_2(atan2f, u10)
VECTOR_2(hypotf, u05)
VECTOR_2(powf, u10)

// Lane by lane, for what libmvec lacks.
#define LANES_2(name, f)                                   \
  MATH AVX2 __m256 Sleef_##name(__m256 x, __m256 y) {      \
    for (int i = 0; i < 8; i++) x[i] = std::f(x[i], y[i]); \
    return x;                                              \
  }
#define LANES_2_WIDE(name, f)                               \
  MATH AVX512 __m512 Sleef_##name(__m512 x, __m512 y) {     \
    for (int i = 0; i < 16; i++) x[i] = std::f(x[i], y[i]); \
    return x;                                               \
  }
LANES_2(fmodf8, fmod)
LANES_2_WIDE(fmodf16, fmod)
LANES_2(nextafterf8, nextafter)
LANES_2_WIDE(nextafterf16, nextafter)
MATH AVX2 __m256 Sleef_lgammaf8_u10(__m256 x) {
  for (int i = 0; i < 8; i++) x[i] = std::lgamma(x[i]);
  return x;
}
MATH AVX512 __m512 Sleef_lgammaf16_u10(__m512 x) {
  for (int i = 0; i < 16; i++) x[i] = std::lgamma(x[i]);
  return x;
}

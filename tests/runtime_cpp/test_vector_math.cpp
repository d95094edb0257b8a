// The Sleef_* functions against libm's double precision: at most 4 ULP over the range where
// generated code uses them, and libm's answer for zeros, infinities and NaN.
#include <gtest/gtest.h>
#include <immintrin.h>

#include <cfloat>
#include <cmath>
#include <functional>
#include <limits>
#include <vector>

#define AVX2 __attribute__((target("avx2,fma")))
#define AVX512 __attribute__((target("avx512f,avx512dq,avx512vl,avx512bw,fma")))
// clang-format off: it does not agree with itself on lists in macros
#define UNARY(X)                                                                                 \
  X(acos, u10)                                                                                   \
  X(acosh, u10)                                                                                  \
  X(asin, u10)                                                                                   \
  X(asinh, u10)                                                                                  \
  X(atan, u10)                                                                                   \
  X(atanh, u10)                                                                                  \
  X(cos, u35)                                                                                    \
  X(cosh, u10) X(erf, u10) X(erfc, u15) X(exp, u10) X(exp2, u10) X(expm1, u10) X(log, u10)       \
      X(log10, u10) X(log1p, u10) X(log2, u10) X(sin, u35) X(sinh, u10) X(tan, u10) X(tanh, u10) \
          X(lgamma, u10)
#define BINARY(X) X(atan2f, _u10) X(hypotf, _u05) X(powf, _u10) X(fmodf, ) X(nextafterf, )
// clang-format on

#define DECLARE(f, ulp)                               \
  extern "C" AVX2 __m256 Sleef_##f##f8_##ulp(__m256); \
  extern "C" AVX512 __m512 Sleef_##f##f16_##ulp(__m512);
UNARY(DECLARE)
#undef DECLARE
#define DECLARE(f, ulp)                                     \
  extern "C" AVX2 __m256 Sleef_##f##8##ulp(__m256, __m256); \
  extern "C" AVX512 __m512 Sleef_##f##16##ulp(__m512, __m512);
BINARY(DECLARE)
#undef DECLARE

namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();
constexpr float kNan = std::numeric_limits<float>::quiet_NaN();

// Every vector function in the same form, through memory, so that tests are compiled for any CPU.
using Function = void (*)(const float* x, const float* y, float* result);
struct Forms {
  const char* name;
  Function eight, sixteen;
};
const Forms kForms[] = {
#define ROW(f, ulp)                                                            \
  {#f,                                                                         \
   [](const float* x, const float*, float* r)                                  \
       AVX2 { _mm256_storeu_ps(r, Sleef_##f##f8_##ulp(_mm256_loadu_ps(x))); }, \
   [](const float* x, const float*, float* r)                                  \
       AVX512 { _mm512_storeu_ps(r, Sleef_##f##f16_##ulp(_mm512_loadu_ps(x))); }},
    UNARY(ROW)
#undef ROW
#define ROW(f, ulp)                                                                              \
  {#f,                                                                                           \
   [](const float* x, const float* y, float* r)                                                  \
       AVX2 { _mm256_storeu_ps(r, Sleef_##f##8##ulp(_mm256_loadu_ps(x), _mm256_loadu_ps(y))); }, \
   [](const float* x, const float* y, float* r) AVX512 {                                         \
     _mm512_storeu_ps(r, Sleef_##f##16##ulp(_mm512_loadu_ps(x), _mm512_loadu_ps(y)));            \
   }},
        BINARY(ROW)
#undef ROW
};

struct Width {
  int lanes;
  Function Forms::* form;
};

// The widths that this CPU can run.
std::vector<Width> widths() {
  std::vector<Width> found;
  if (__builtin_cpu_supports("x86-64-v3")) found.push_back({8, &Forms::eight});
  if (__builtin_cpu_supports("x86-64-v4")) found.push_back({16, &Forms::sixteen});
  return found;
}

const Forms& forms(const std::string& name) {
  for (const Forms& candidate : kForms) {
    if (name == candidate.name) return candidate;
  }
  throw std::out_of_range(name);
}

// Distance in units of the last place of the float nearest to `exact`.
double ulps(float got, double exact) {
  const float rounded = static_cast<float>(exact);
  if (got == rounded || (std::isnan(got) && std::isnan(rounded))) return 0;
  if (!std::isfinite(got) || !std::isfinite(rounded)) return kInfinity;
  const double unit = std::fabs(std::nextafter(rounded, kInfinity) - rounded);
  return std::fabs(got - exact) / std::max<double>(unit, FLT_TRUE_MIN);
}

void expect_close(const std::string& name, float low, float high,
                  const std::function<double(double, double)>& exact, float second = 0) {
  for (const Width& width : widths()) {
    double worst = 0;
    float worst_at = 0;
    for (int start = 0; start < 4096; start += width.lanes) {
      float x[16], y[16], result[16];
      for (int i = 0; i < width.lanes; i++) {
        x[i] = low + (high - low) * static_cast<float>(start + i) / 4095.0f;
        y[i] = second;
      }
      (forms(name).*width.form)(x, y, result);
      for (int i = 0; i < width.lanes; i++) {
        const double distance = ulps(result[i], exact(x[i], y[i]));
        if (distance > worst) worst = distance, worst_at = x[i];
      }
    }
    EXPECT_LE(worst, 4) << name << " of " << width.lanes << " lanes at " << worst_at;
  }
}

struct Range {
  const char* name;
  float low, high;
  double (*exact)(double);
};

class UnaryTest : public testing::TestWithParam<Range> {};

TEST_P(UnaryTest, IsWithinFourUlp) {
  const Range& range = GetParam();
  expect_close(range.name, range.low, range.high, [&](double x, double) { return range.exact(x); });
}

INSTANTIATE_TEST_SUITE_P(
    VectorMath, UnaryTest,
    testing::Values(Range{"acos", -1, 1, std::acos}, Range{"acosh", 1, 1e4f, std::acosh},
                    Range{"asin", -1, 1, std::asin}, Range{"asinh", -1e4f, 1e4f, std::asinh},
                    Range{"atan", -50, 50, std::atan}, Range{"atanh", -0.999f, 0.999f, std::atanh},
                    Range{"cos", -1e4f, 1e4f, std::cos}, Range{"cosh", -80, 80, std::cosh},
                    Range{"erf", -4, 4, std::erf}, Range{"erfc", -4, 4, std::erfc},
                    Range{"exp", -87, 88, std::exp}, Range{"exp2", -125, 127, std::exp2},
                    Range{"expm1", -20, 80, std::expm1}, Range{"log", 1e-6f, 1e6f, std::log},
                    Range{"log10", 1e-6f, 1e6f, std::log10},
                    Range{"log1p", -0.9f, 1e4f, std::log1p}, Range{"log2", 1e-6f, 1e6f, std::log2},
                    Range{"sin", -1e4f, 1e4f, std::sin}, Range{"sinh", -80, 80, std::sinh},
                    Range{"tan", -1.5f, 1.5f, std::tan}, Range{"tanh", -9, 9, std::tanh},
                    Range{"lgamma", 0.1f, 100, std::lgamma}),
    [](const auto& info) { return info.param.name; });

TEST(VectorMath, FunctionsOfTwo) {
  expect_close("atan2f", -50, 50, [](double x, double y) { return std::atan2(x, y); }, -3);
  expect_close("hypotf", -1e4f, 1e4f, [](double x, double y) { return std::hypot(x, y); }, 77);
  expect_close("powf", 0, 100, [](double x, double y) { return std::pow(x, y); }, 2.5f);
  expect_close("fmodf", -100, 100, [](double x, double y) { return std::fmod(x, y); }, 0.75f);
  expect_close(
      "nextafterf", -3, 3,
      [](double x, double y) {
        return std::nextafter(static_cast<float>(x), static_cast<float>(y));
      },
      1);
}

// A masked attention score is -infinity; a saturated activation is +infinity.
TEST(VectorMath, SpecialValues) {
  const struct {
    const char* name;
    float x, expected;
  } cases[] = {{"exp", -kInfinity, 0},
               {"exp", kInfinity, kInfinity},
               {"exp", 0, 1},
               {"exp", -200, 0},
               {"exp", 200, kInfinity},
               {"exp", kNan, kNan},
               {"tanh", kInfinity, 1},
               {"tanh", -kInfinity, -1},
               {"tanh", kNan, kNan},
               {"erf", kInfinity, 1},
               {"erf", -kInfinity, -1},
               {"log", 0, -kInfinity},
               {"log", -1, kNan},
               {"log", kInfinity, kInfinity},
               {"sin", kInfinity, kNan},
               {"cos", 0, 1},
               {"log1p", -1, -kInfinity},
               {"expm1", -kInfinity, -1},
               {"exp2", -kInfinity, 0},
               {"acos", 2, kNan},
               {"lgamma", 0, kInfinity}};
  for (const auto& test : cases) {
    for (const Width& width : widths()) {
      float x[16], result[16];
      for (float& lane : x) lane = test.x;
      (forms(test.name).*width.form)(x, x, result);
      for (int i = 0; i < width.lanes; i++) {
        EXPECT_EQ(ulps(result[i], test.expected), 0)
            << test.name << "(" << test.x << ") = " << result[i] << ", lane " << i;
      }
    }
  }
}

// A special value in one lane must not disturb the others (libmvec leaves its fast path for it).
TEST(VectorMath, LanesAreIndependent) {
  for (const Width& width : widths()) {
    for (int special = 0; special < width.lanes; special++) {
      float x[16], result[16];
      for (int i = 0; i < 16; i++) x[i] = 0.5f * static_cast<float>(i) - 3;
      x[special] = kInfinity;
      (forms("exp").*width.form)(x, x, result);
      for (int i = 0; i < width.lanes; i++) {
        EXPECT_LE(ulps(result[i], std::exp(static_cast<double>(x[i]))), 4) << i;
      }
    }
  }
}

}  // namespace

#include <gtest/gtest.h>
#include <immintrin.h>

#include <cmath>
#include <cstring>

#include "host/pool.h"
#include "host/tensor.h"

using ingot::host::Tensor;

TEST(Pool, ReusesWhatWasFreedAndAligns) {
  const size_t sizes[] = {0, 1, 512, 513, 600, 4096, 100'000, 1 << 20};
  for (size_t size : sizes) {
    char* first = ingot::host::pool_allocate(size);
    EXPECT_EQ(reinterpret_cast<uintptr_t>(first) % 64, 0u);
    std::memset(first, 1, size);
    ingot::host::pool_free(first, size);
    const size_t held = ingot::host::pool_bytes();
    EXPECT_EQ(ingot::host::pool_allocate(size), first) << size;
    EXPECT_EQ(ingot::host::pool_bytes(), held);
    ingot::host::pool_free(first, size);
  }
}

TEST(Pool, SizesInUseDoNotOverlap) {
  std::vector<std::pair<char*, size_t>> taken;
  for (size_t size = 1; size < 5000; size += 37) {
    taken.emplace_back(ingot::host::pool_allocate(size), size);
    std::memset(taken.back().first, static_cast<int>(taken.size()), size);
  }
  for (size_t i = 0; i < taken.size(); i++) {
    EXPECT_EQ(taken[i].first[0], static_cast<char>(i + 1));
    EXPECT_EQ(taken[i].first[taken[i].second - 1], static_cast<char>(i + 1));
    ingot::host::pool_free(taken[i].first, taken[i].second);
  }
}

TEST(Tensors, ViewsShareAndBorrowedMemoryStays) {
  float values[6] = {0, 1, 2, 3, 4, 5};
  const int64_t sizes[] = {2, 3}, strides[] = {3, 1};
  auto* tensor = Tensor::borrow(values, 2, sizes, strides, 0, ingot::host::kFloat32);
  auto* view = new Tensor(*tensor);
  view->offset = 3;
  delete tensor;
  EXPECT_EQ(reinterpret_cast<float*>(view->data())[1], 4);
  EXPECT_EQ(view->numel(), 6);
  delete view;
  EXPECT_EQ(values[4], 4);
}

TEST(Tensors, EmptyAndOverlongShapes) {
  const int64_t sizes[] = {4, 0, 3}, strides[] = {3, 3, 1};
  auto* empty = Tensor::empty(3, sizes, strides, ingot::host::kInt64);
  EXPECT_EQ(empty->numel(), 0);
  EXPECT_EQ(empty->span_bytes(), 0u);
  delete empty;
  EXPECT_EQ(Tensor::empty(99, sizes, strides, ingot::host::kInt64), nullptr);
}

extern "C" {
__m256 Sleef_expf8_u10(__m256);
__m256 Sleef_sinf8_u35(__m256);
__m256 Sleef_cosf8_u35(__m256);
__m256 Sleef_tanhf8_u10(__m256);
__m512 Sleef_expf16_u10(__m512);
__m512 Sleef_sinf16_u35(__m512);
}

namespace {
constexpr double kUlps = 4;  // what glibc's libmvec promises

void expect_close(float found, double exact, float x) {
  const double ulp = std::ldexp(1.0, std::ilogb(std::abs(exact) + 1e-30) - 23);
  EXPECT_NEAR(found, exact, kUlps * ulp + 1e-37) << "at " << x;
}

template <class Function>
__attribute__((target("avx2"))) void check8(Function ours, double (*exact)(double), float limit) {
  for (float x = -limit; x < limit; x += limit / 500) {
    float out[8];
    _mm256_storeu_ps(out, ours(_mm256_set1_ps(x)));
    for (float value : out) expect_close(value, exact(x), x);
  }
}

__attribute__((target("avx512f"))) void check16(__m512 (*ours)(__m512), double (*exact)(double),
                                                float limit) {
  for (float x = -limit; x < limit; x += limit / 500) {
    float out[16];
    _mm512_storeu_ps(out, ours(_mm512_set1_ps(x)));
    for (float value : out) expect_close(value, exact(x), x);
  }
}
}  // namespace

TEST(VectorMath, EightLanes) {
  if (!__builtin_cpu_supports("avx2")) GTEST_SKIP() << "no AVX2 here";
  check8(Sleef_expf8_u10, std::exp, 80);
  check8(Sleef_sinf8_u35, std::sin, 3);
  check8(Sleef_cosf8_u35, std::cos, 1.5);
  check8(Sleef_tanhf8_u10, std::tanh, 9);
}

TEST(VectorMath, SixteenLanes) {
  if (!__builtin_cpu_supports("avx512f")) GTEST_SKIP() << "no AVX-512 here";
  check16(Sleef_expf16_u10, std::exp, 80);
  check16(Sleef_sinf16_u35, std::sin, 3);
}

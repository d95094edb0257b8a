// What this machine can do at most: streaming reads and fused multiply-adds, on OpenMP's threads.
// Built by bench_ops.py for this machine alone.
#include <immintrin.h>

#include <chrono>
#include <cstddef>
#include <cstdint>

namespace {
double seconds_since(std::chrono::steady_clock::time_point start) {
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}
#if defined(__AVX512F__)
constexpr int kLanes = 16;
#else
constexpr int kLanes = 8;
#endif
volatile double sink;  // what is stored here is computed
using Vec = float __attribute__((vector_size(kLanes * 4)));
}  // namespace

// Seconds to read `bytes` (a multiple of 64) once, with all threads.
extern "C" double read_seconds(const char* data, size_t bytes) {
  using Lane = uint64_t __attribute__((vector_size(64), aligned(64), may_alias));
  const auto* lanes = reinterpret_cast<const Lane*>(data);
  const auto count = static_cast<int64_t>(bytes / 64);
  uint64_t sum = 0;
  const auto start = std::chrono::steady_clock::now();
#pragma omp parallel reduction(+ : sum)
  {
    Lane part[4] = {};
#pragma omp for schedule(static)
    for (int64_t i = 0; i < count / 4; i++)
      for (int k = 0; k < 4; k++) part[k] += lanes[i * 4 + k];
    for (const Lane& lane : part)
      for (int k = 0; k < 8; k++) sum += lane[k];
  }
  const double seconds = seconds_since(start);
  sink = static_cast<double>(sum);
  return seconds;
}

// float32 multiply-adds a second (two operations each), with all threads: 12 independent chains.
extern "C" double fma_flops(int64_t rounds) {
  const auto start = std::chrono::steady_clock::now();
  int threads = 0;
  float total = 0;
#pragma omp parallel reduction(+ : threads, total)
  {
    threads = 1;
    const Vec zero{};  // chains that begin alike would be made one
    Vec s0 = zero, s1 = zero + 1, s2 = zero + 2, s3 = zero + 3, s4 = zero + 4, s5 = zero + 5;
    Vec s6 = zero + 6, s7 = zero + 7, s8 = zero + 8, s9 = zero + 9, s10 = zero + 10,
        s11 = zero + 11;
    const Vec a = Vec{} + 1.0001f, b = Vec{} + 0.9999f;
    for (int64_t r = 0; r < rounds; r++) {
      s0 = s0 * a + b, s1 = s1 * a + b, s2 = s2 * a + b, s3 = s3 * a + b;
      s4 = s4 * a + b, s5 = s5 * a + b, s6 = s6 * a + b, s7 = s7 * a + b;
      s8 = s8 * a + b, s9 = s9 * a + b, s10 = s10 * a + b, s11 = s11 * a + b;
    }
    const Vec sum = s0 + s1 + s2 + s3 + s4 + s5 + s6 + s7 + s8 + s9 + s10 + s11;
    for (int lane = 0; lane < kLanes; lane++) total += sum[lane];
  }
  sink = total;
  return 2.0 * 12 * kLanes * static_cast<double>(rounds) * threads / seconds_since(start);
}

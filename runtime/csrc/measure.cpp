#include "measure.h"

#include <omp.h>

#include <algorithm>
#include <chrono>

#include "cpu.h"
#include "host.h"

namespace ingot {
namespace {
using Clock = std::chrono::steady_clock;

double seconds_since(Clock::time_point start) {
  return std::chrono::duration<double>(Clock::now() - start).count();
}

int team(int threads) { return threads > 0 ? threads : free_cores(); }

constexpr int kChains =
    12;  // independent: more than latency times units of any CPU of these levels
constexpr int64_t kRounds = 200'000;

// A sum of what all chains come to, so that they are computed.
template <class Vec>
[[gnu::always_inline]] inline float run_chains() {
  Vec sums[kChains];
  for (int i = 0; i < kChains; i++) sums[i] = Vec{} + static_cast<float>(i);  // or they are one
  const Vec a = Vec{} + 1.0001f, b = Vec{} + 0.9999f;
  for (int64_t r = 0; r < kRounds; r++)
    for (Vec& sum : sums) sum = sum * a + b;
  float total = 0;
  for (const Vec& sum : sums)
    for (size_t lane = 0; lane < sizeof(Vec) / sizeof(float); lane++) total += sum[lane];
  return total;
}

using Vec4 = float __attribute__((vector_size(16)));
using Vec8 = float __attribute__((vector_size(32)));
using Vec16 = float __attribute__((vector_size(64)));
float chains_v2() { return run_chains<Vec4>(); }
[[gnu::target("avx2,fma")]] float chains_v3() { return run_chains<Vec8>(); }
[[gnu::target("avx512f,prefer-vector-width=512")]] float chains_v4() { return run_chains<Vec16>(); }
}  // namespace

// As fast as the bus gives: eight sums that fit the baseline's registers, and pages fetched ahead,
// where the hardware's prefetcher stops.
double measure_read(const void* data, size_t bytes, int threads) {
  using Lane = uint64_t __attribute__((vector_size(16), aligned(8), may_alias));
  constexpr int64_t kRun = 8, kAhead = 4096 / sizeof(Lane);
  const auto* lanes = static_cast<const Lane*>(data);
  const auto count = static_cast<int64_t>(bytes / sizeof(Lane));
  const int size = team(threads);
  uint64_t sum = 0;
  const auto start = Clock::now();
#pragma omp parallel num_threads(size) reduction(+ : sum)
  {
    Lane part[kRun] = {};
    const int64_t share = (count + omp_get_num_threads() - 1) / omp_get_num_threads();
    const int64_t begin = share * omp_get_thread_num(), end = std::min(begin + share, count);
    for (int64_t i = begin; i + kRun <= end; i += kRun) {
      __builtin_prefetch(lanes + i + kAhead);
      __builtin_prefetch(lanes + i + kAhead + kRun / 2);
      for (int64_t k = 0; k < kRun; k++) part[k] += lanes[i + k];
    }
    for (const Lane& lane : part) sum += lane[0] + lane[1];
  }
  const double seconds = seconds_since(start);
  [[maybe_unused]] static volatile uint64_t sink;
  sink = sum;
  return static_cast<double>(bytes) / seconds / 1e9;
}

double measure_flops(int threads) {
  const int level = isa_level(), size = team(threads);
  const auto chains = level >= 4 ? chains_v4 : level == 3 ? chains_v3 : chains_v2;
  const int lanes = level >= 4 ? 16 : level == 3 ? 8 : 4;
  float total = 0;
  int started = 0;
  const auto start = Clock::now();
#pragma omp parallel num_threads(size) reduction(+ : total, started)
  {
    total += chains();
    started++;
  }
  const double seconds = seconds_since(start);
  [[maybe_unused]] static volatile float sink;
  sink = total;
  return 2.0 * kChains * lanes * kRounds * started / seconds / 1e9;
}
}  // namespace ingot

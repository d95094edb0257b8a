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

int team(int threads) {
  if (threads == kTeamOfCaller) return omp_get_max_threads();
  return threads > 0 ? threads : free_cores();
}
}  // namespace

// As fast as plain loads are: eight sums that fit the baseline's registers. To fetch a page ahead
// gave anything from 0.7 to 1.1 of that, now this for seconds and now that: threads in step, a
// power of 2 apart, meet in the same banks of the memory.
double measure_read(const void* data, size_t bytes, int threads) {
  using Lane = uint64_t __attribute__((vector_size(16), aligned(8), may_alias));
  constexpr int64_t kRun = 8;
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
      for (int64_t k = 0; k < kRun; k++) part[k] += lanes[i + k];
    }
    for (const Lane& lane : part) sum += lane[0] + lane[1];
  }
  const double seconds = seconds_since(start);
  [[maybe_unused]] static volatile uint64_t sink;
  sink = sum;
  return static_cast<double>(bytes) / seconds / 1e9;
}

double measure_peak(const char* factor, int threads) { return ops_peak(factor, team(threads)); }
}  // namespace ingot

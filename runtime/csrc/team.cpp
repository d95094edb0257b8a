#include "team.h"

#include <omp.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <fstream>
#include <string>

#include "cpu.h"

namespace ingot {
namespace {
constexpr double kInterval = 0.25;  // seconds; /proc/stat counts hundredths

double clock_seconds(clockid_t clock) {
  timespec now;
  clock_gettime(clock, &now);
  return static_cast<double>(now.tv_sec) + 1e-9 * static_cast<double>(now.tv_nsec);
}

// /proc/stat's first line: user, nice, system, idle, iowait, irq, softirq, steal.
double machine_seconds() {
  std::ifstream stat("/proc/stat");
  std::string cpu;
  double ticks[8] = {}, busy = 0;
  stat >> cpu;
  for (double& value : ticks) stat >> value;
  if (!stat) return 0;
  for (const int i : {0, 1, 2, 5, 6, 7}) busy += ticks[i];
  return busy / static_cast<double>(sysconf(_SC_CLK_TCK));
}
}  // namespace

CpuTimes read_times() {
  return {machine_seconds(), clock_seconds(CLOCK_PROCESS_CPUTIME_ID),
          clock_seconds(CLOCK_MONOTONIC)};
}

int free_cores_between(const CpuTimes& before, const CpuTimes& after, int cores, int usable) {
  const double wall = after.wall - before.wall;
  const double others = (after.machine - before.machine) - (after.own - before.own);
  const int taken = wall > 0 ? static_cast<int>(std::lround(std::max(others, 0.0) / wall)) : 0;
  return std::clamp(cores - taken, 1, usable);
}

void Team::assemble() {
  if (fixed_ > 0) {
    chosen_ = fixed_;
  } else if (!last_) {
    chosen_ = free_cores();
    last_ = read_times();
  } else if (clock_seconds(CLOCK_MONOTONIC) - last_->wall >= kInterval) {
    const CpuTimes now = read_times();
    const auto cores = static_cast<int>(sysconf(_SC_NPROCESSORS_ONLN));
    chosen_ = free_cores_between(*last_, now, cores, usable_cores());
    last_ = now;
  }
  omp_set_num_threads(chosen_);
}
}  // namespace ingot

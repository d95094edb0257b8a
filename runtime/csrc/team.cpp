#include "team.h"

#include <omp.h>
#include <sched.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <fstream>
#include <string>
#include <vector>

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

// Creates a team of as many threads as there are cores, each on a core of its own. Linux may begin
// a thread on its creator's core, where it spins for its first work and keeps the creator from
// bringing that, or later move one to where another spins, if somebody else takes a core: slices of
// 4 ms, in which all wait. Of one thread more than there are cores libgomp lets none spin for long
// (its manual, GOMP_SPINCOUNT); that one ends with the next region. Returns the cores that all were
// free to use, if they are bound now.
std::optional<cpu_set_t> spread(int threads) {
  cpu_set_t all;
  if (sched_getaffinity(0, sizeof all, &all) != 0 || CPU_COUNT(&all) != threads) return {};
  const int own = sched_getcpu();
  std::vector<int> cores = {own};
  for (int core = 0; core < CPU_SETSIZE; core++)
    if (CPU_ISSET(core, &all) && core != own) cores.push_back(core);
#pragma omp parallel num_threads(threads + 1)
  if (const int thread = omp_get_thread_num(); thread < threads) {
    cpu_set_t core;
    CPU_ZERO(&core);
    CPU_SET(cores[thread], &core);
    sched_setaffinity(0, sizeof core, &core);
  }
  return all;
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

void end_own_team() { omp_pause_resource_all(omp_pause_soft); }

void Team::end() {
  if (widest_ == 1) return;
  end_own_team();
  widest_ = 1;
  unbind();
}

// Its threads, of which there may be none but the caller.
void Team::unbind() {
  if (!unbound_) return;
#pragma omp parallel num_threads(widest_)
  sched_setaffinity(0, sizeof *unbound_, &*unbound_);
  unbound_.reset();
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
    // A bound thread sees one core; only threads as many as they may use are bound.
    const int usable = unbound_ ? widest_ : usable_cores();
    chosen_ = free_cores_between(*last_, now, cores, usable);
    last_ = now;
  }
  if (chosen_ != widest_) unbind();  // of fewer threads none stays where somebody else works
  if (chosen_ > widest_) unbound_ = spread(chosen_);
  widest_ = std::max(widest_, chosen_);
  omp_set_num_threads(chosen_);
}
}  // namespace ingot

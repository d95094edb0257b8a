#include "cpu.h"

#include <sched.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <fstream>

#include "error.h"

namespace ingot {
int parse_isa(const std::string& name) {
  const std::string stem = "x86-64-v";
  if (name.size() != stem.size() + 1 || name.compare(0, stem.size(), stem) != 0) return 0;
  const int level = name.back() - '0';
  return level >= 2 && level <= 4 ? level : 0;
}

static int cpu_level() {
  __builtin_cpu_init();
  if (__builtin_cpu_supports("x86-64-v4")) return 4;
  return __builtin_cpu_supports("x86-64-v3") ? 3 : 2;
}

int isa_level() {
  const int own = cpu_level();
  const char* forced = std::getenv("INGOT_ISA");
  if (!forced || !*forced) return own;
  // The kernels know one level more; generated code has no part in it.
  const bool bf16 = std::string(forced) == "x86-64-v4-bf16";
  const int level = bf16 ? 4 : parse_isa(forced);
  if (level == 0)
    bad_input(std::string("INGOT_ISA=") + forced +
              " is unknown; use x86-64-v2, -v3, -v4 or -v4-bf16");
  if (level > own)
    bad_input(std::string("INGOT_ISA=") + forced + ", but this CPU is x86-64-v" +
              std::to_string(own) + "; use that or lower");
  return level;
}

int usable_cores() {
  cpu_set_t set;
  const int allowed = sched_getaffinity(0, sizeof set, &set) == 0 ? CPU_COUNT(&set) : 1;
  std::ifstream quota_file("/sys/fs/cgroup/cpu.max");  // "max 100000" or "150000 100000"
  double quota = 0, period = 0;
  if (quota_file >> quota >> period && period > 0)
    return std::clamp(static_cast<int>(quota / period + 0.5), 1, allowed);
  return std::max(allowed, 1);
}

int free_cores() {
  std::ifstream stat("/proc/stat");
  int running = 1;  // this thread
  for (std::string word; stat >> word;)
    if (word == "procs_running") stat >> running;
  const auto all = static_cast<int>(sysconf(_SC_NPROCESSORS_ONLN));
  return std::clamp(all - (running - 1), 1, usable_cores());
}
}  // namespace ingot

#include "cpu.h"

#include <sched.h>
#include <unistd.h>

#include <algorithm>
#include <fstream>

namespace ingot {
int parse_isa(const std::string& name) {
  const std::string stem = "x86-64-v";
  if (name.size() != stem.size() + 1 || name.compare(0, stem.size(), stem) != 0) return 0;
  const int level = name.back() - '0';
  return level >= 2 && level <= 4 ? level : 0;
}

// System V psABI, section 3.1.1.
std::vector<CpuFeature> cpu_features() {
  __builtin_cpu_init();
#define INGOT_FEATURE(level, name) {level, name, __builtin_cpu_supports(name) != 0}
  return {
      INGOT_FEATURE(2, "cmpxchg16b"), INGOT_FEATURE(2, "popcnt"),   INGOT_FEATURE(2, "sse3"),
      INGOT_FEATURE(2, "ssse3"),      INGOT_FEATURE(2, "sse4.1"),   INGOT_FEATURE(2, "sse4.2"),
      INGOT_FEATURE(3, "avx"),        INGOT_FEATURE(3, "avx2"),     INGOT_FEATURE(3, "bmi"),
      INGOT_FEATURE(3, "bmi2"),       INGOT_FEATURE(3, "f16c"),     INGOT_FEATURE(3, "fma"),
      INGOT_FEATURE(3, "lzcnt"),      INGOT_FEATURE(3, "movbe"),    INGOT_FEATURE(4, "avx512f"),
      INGOT_FEATURE(4, "avx512bw"),   INGOT_FEATURE(4, "avx512cd"), INGOT_FEATURE(4, "avx512dq"),
      INGOT_FEATURE(4, "avx512vl")};
#undef INGOT_FEATURE
}

std::string missing_features(int level, const std::vector<CpuFeature>& features) {
  std::string missing;
  for (const CpuFeature& feature : features)
    if (feature.level <= level && !feature.present)
      missing += (missing.empty() ? "" : ", ") + std::string(feature.name);
  return missing;
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

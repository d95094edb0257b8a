// What this machine gives us: its x86-64 level and the cores that the process may use.
#pragma once
#include <string>
#include <vector>

namespace ingot {
// 3 for "x86-64-v3"; 0 for what is not a level from 2 to 4.
int parse_isa(const std::string& name);

// An instruction set extension, by GCC's name, and the x86-64 level that first demands it.
struct CpuFeature {
  int level;
  const char* name;
  bool present;
};
// Those of the levels 2 to 4, of this CPU; what the operating system does not save is not present.
std::vector<CpuFeature> cpu_features();
// What is not present of all that a level demands: "avx512f, avx512bw"; "" if nothing.
std::string missing_features(int level, const std::vector<CpuFeature>& features = cpu_features());

// Affinity mask, limited by the control group's CPU quota; at least 1.
int usable_cores();
// Those of them that nothing else runs on at this moment; at least 1.
int free_cores();
}  // namespace ingot

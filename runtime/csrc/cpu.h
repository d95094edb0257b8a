// What this machine gives us: its x86-64 level and the cores that the process may use.
#pragma once
#include <string>

namespace ingot {
// 2, 3 or 4; INGOT_ISA=x86-64-vN lowers it, x86-64-v4-bf16 is 4. Throws Error for a value that is
// unknown or too high.
int isa_level();
// 3 for "x86-64-v3"; 0 for what is not a level.
int parse_isa(const std::string& name);
// Affinity mask, limited by the control group's CPU quota; at least 1.
int usable_cores();
// Those of them that nothing else runs on at this moment; at least 1.
int free_cores();
}  // namespace ingot

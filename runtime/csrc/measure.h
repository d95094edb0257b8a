// What this machine gives at most: streaming reads, and multiply-adds.
#pragma once
#include <cstddef>
#include <cstdint>

namespace ingot {
// As many threads as the calling thread's OpenMP team has.
inline constexpr int kTeamOfCaller = -1;
// GB/s (1e9) of reading `bytes` once with `threads` threads; 0: the cores that are free.
double measure_read(const void* data, size_t bytes, int threads);
// GFLOP/s of multiply-adds, two operations each, of "float32", "bfloat16" or "int8" factors, by the
// instructions of the kernels' level. About a millisecond. Throws Error for another name, or where
// INGOT_ISA is wrong.
double measure_peak(const char* factor, int threads);
}  // namespace ingot

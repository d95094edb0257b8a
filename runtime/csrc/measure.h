// What this machine gives at most: streaming reads and float32 multiply-adds.
#pragma once
#include <cstddef>
#include <cstdint>

namespace ingot {
// GB/s (1e9) of reading `bytes` once with `threads` threads; 0: the cores that are free.
double measure_read(const void* data, size_t bytes, int threads);
// GFLOP/s of multiply-adds, two operations each, by the instructions of isa_level(). About a
// millisecond. Throws Error where INGOT_ISA is wrong.
double measure_flops(int threads);
}  // namespace ingot

// The host that generated code runs in: opened once a process, RTLD_LOCAL, found beside this
// library.
#pragma once
#include "host/host_api.h"

namespace ingot {
// Throws Error if it cannot be opened, or if the process already shows another `aoti_torch_*`
// globally, which would capture the calls of generated code.
const ingot_host_api& host();
// Opens the host's CUDA half, which generated code for a GPU needs; gives the version of CUDA that
// its ops were compiled with, 1000 * major + 10 * minor, or 0. Throws Error if it is not there.
int open_cuda_host();
// Whether generated code or an op has found no memory on this thread since this was asked last.
bool cuda_host_ran_out();

// The x86-64 level of generated code that this process runs at most: 2, 3 or 4. It is that of
// libingot_ops' kernels, chosen once a process: what INGOT_ISA names, else the highest that the CPU
// has. Throws Error where INGOT_ISA names no level, or one that the CPU lacks.
int isa_level();

// What libingot_ops measures with `threads` threads (ops_api.h). Throws Error as isa_level() does,
// and for a factor that it does not know.
double ops_peak(const char* factor, int threads);

// Schema of an op of libingot_ops, or nullptr.
const char* op_schema(const char* name);
}  // namespace ingot

// The host that generated code runs in: opened once a process, RTLD_LOCAL, found beside this
// library.
#pragma once
#include "host/host_api.h"

namespace ingot {
// Throws Error if it cannot be opened, or if the process already shows another `aoti_torch_*`
// globally, which would capture the calls of generated code.
const ingot_host_api& host();

// Schema of an op of libingot_ops, or nullptr.
const char* op_schema(const char* name);
}  // namespace ingot

// Recording of kernels and op calls: generated code brackets each with aoti_record_function_start
// and _end.
#pragma once
#include "host_api.h"

namespace ingot::host {
void trace_enable(int32_t on);
void trace_add(const ingot_host_event* event);
void trace_collect(void (*take)(const ingot_host_event*, void*), void* user);
}  // namespace ingot::host

// What libingot asks of the host it opened, beside the aoti_torch_* interface: one table by dlsym.
#pragma once
#include <cstddef>
#include <cstdint>

extern "C" {
struct ingot_host_event {
  const char* name;  // stays valid while the package's code is loaded: for ever
  int64_t start_ns;  // CLOCK_MONOTONIC
  int64_t duration_ns;
  int32_t thread;  // kernel thread id
};

// A control of what crosses the border between generated code and the host (docs/controls.md).
struct ingot_host_control {
  const char* name;
  const char* variable;  // of the environment, that also sets it
  const char* value;     // what it takes
  const char* meaning;
};

struct ingot_host_api {
  size_t struct_bytes;
  // A tensor over memory of the caller's; 0 on success. Ended by tensor_delete or by generated
  // code.
  int32_t (*tensor_borrow)(void* data, int64_t dim, const int64_t* sizes, const int64_t* strides,
                           int32_t scalar_type, void** tensor);
  void (*tensor_delete)(void* tensor);
  void* (*tensor_data)(void* tensor);
  // Sizes and strides stay with the tensor. `owned`: whether its memory is the host's, not
  // borrowed.
  void (*tensor_describe)(void* tensor, int64_t* dim, const int64_t** sizes,
                          const int64_t** strides, int32_t* scalar_type, int32_t* owned);
  // Handles that generated code copies on this thread from begin to end and does not end itself, in
  // one object that ends them.
  void* (*copies_begin)();
  void (*copies_end)();
  void (*copies_delete)(void* copies);
  // Recording of kernels and op calls. `trace_collect` hands out each event once, a thread's oldest
  // first; calls may go on meanwhile.
  void (*trace_enable)(int32_t on);
  void (*trace_collect)(void (*take)(const ingot_host_event*, void*), void* user);
  // Brackets one run of a graph, on the thread that runs it; `sizes` of its first input.
  void (*run_begins)(int64_t dim, const int64_t* sizes);
  void (*run_ends)();
  // Controls: a row of the table of all there are, or null; one turned on (off: an empty value);
  // those that the environment asks for; all report and are off. These give null, or the sentence
  // that refuses, valid until the next such call on this thread.
  const ingot_host_control* (*control)(size_t index);
  const char* (*control_set)(const char* name, const char* value);
  const char* (*controls_from_environment)();
  const char* (*controls_report)();
};
const ingot_host_api* ingot_host_get_api();
}

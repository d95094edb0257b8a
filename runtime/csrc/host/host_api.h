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

// A GPU for what generated code asks of the host: memory of one stream, in whose order it is used.
// Calls come from the thread that uses the device.
struct ingot_host_device {
  void* user;
  int32_t index;
  void* stream;
  void* (*allocate)(void* user, size_t bytes);  // null: there is none left
  void (*release)(void* user, void* memory, size_t bytes);
  // Between the GPU's memory and either's, in the stream's order; 0 on success.
  int32_t (*copy)(void* user, void* to, const void* from, size_t bytes);
  // Around the work of one kernel or op call, while it is traced: how long it takes is known later,
  // and told by `trace_add`.
  void (*call_begins)(void* user, const char* name);
  void (*call_ends)(void* user);
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
  // A tensor over memory of the caller's, of the thread's device if `on_device`; 0 on success.
  // Ended by tensor_delete or by generated code.
  int32_t (*tensor_borrow)(void* data, int64_t dim, const int64_t* sizes, const int64_t* strides,
                           int32_t scalar_type, int32_t on_device, void** tensor);
  void (*tensor_delete)(void* tensor);
  void* (*tensor_data)(void* tensor);
  // Sizes and strides stay with the tensor. `owned`: whether its memory is the host's, not
  // borrowed; `on_device`: whether it is a GPU's.
  void (*tensor_describe)(void* tensor, int64_t* dim, const int64_t** sizes,
                          const int64_t** strides, int32_t* scalar_type, int32_t* owned,
                          int32_t* on_device);
  // Handles that generated code copies on this thread from begin to end and does not end itself, in
  // one object that ends them.
  void* (*copies_begin)();
  void (*copies_end)();
  void (*copies_delete)(void* copies);
  // Recording of kernels and op calls. `trace_collect` hands out each event once, a thread's oldest
  // first; calls may go on meanwhile.
  void (*trace_enable)(int32_t on);
  void (*trace_collect)(void (*take)(const ingot_host_event*, void*), void* user);
  // A call of this thread that somebody else timed; `thread` is not read.
  void (*trace_add)(const ingot_host_event* event);
  // The device of this thread's tensors from here on, or null: none. It is to outlive them.
  void (*device_use)(const ingot_host_device* device);
  const ingot_host_device* (*device_in_use)();
  // Whether a control is on that reads or writes the tensors of op calls, on the CPU.
  int32_t (*controls_watch_data)();
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

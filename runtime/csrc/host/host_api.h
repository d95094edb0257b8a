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
  // Recording of kernels and op calls. `trace_collect` hands out each event once, a thread's oldest
  // first; calls may go on meanwhile.
  void (*trace_enable)(int32_t on);
  void (*trace_collect)(void (*take)(const ingot_host_event*, void*), void* user);
};
const ingot_host_api* ingot_host_get_api();
}

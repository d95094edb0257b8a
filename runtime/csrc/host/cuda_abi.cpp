// The part of the aoti_torch_* interface that generated code for CUDA alone calls, names and types
// as in torch/csrc/inductor/aoti_torch/c/shim.h. The runtime has made a device and a stream current
// on the thread before a run (ingot_host_device), and there is one of each: guards have nothing to
// do but to refuse others.
#include <cstdint>

#include "host_api.h"

#define ABI extern "C" __attribute__((visibility("default")))

static const ingot_host_device* current() { return ingot_host_get_api()->device_in_use(); }

// Generated code ends what it is given, so it is given something.
static char guard;
static int32_t give_guard(int32_t index, void** made) {
  *made = &guard;
  return current() && index == current()->index ? 0 : 1;
}

ABI int32_t aoti_torch_create_cuda_guard(int32_t index, void** made) {
  return give_guard(index, made);
}
ABI int32_t aoti_torch_delete_cuda_guard(void*) { return 0; }
ABI int32_t aoti_torch_cuda_guard_set_index(void*, int32_t index) {
  return current() && index == current()->index ? 0 : 1;
}
ABI int32_t aoti_torch_create_cuda_stream_guard(void* stream, int32_t index, void** made) {
  if (current() && stream != current()->stream) return 1;
  return give_guard(index, made);
}
ABI int32_t aoti_torch_delete_cuda_stream_guard(void*) { return 0; }
ABI int32_t aoti_torch_get_current_cuda_stream(int32_t index, void** stream) {
  if (!current() || index != current()->index) return 1;
  *stream = current()->stream;
  return 0;
}

// The toy model between AOTInductor's entry points (toy_model.cpp) and where a step runs
// (toy_cpu.cpp, toy_cuda.cpp).
#pragma once

#include "toy_step.h"

struct AtenTensorOpaque;
using Handle = AtenTensorOpaque*;

extern "C" {
int32_t aoti_torch_create_tensor_from_blob(void* data, int64_t dim, const int64_t* sizes,
                                           const int64_t* strides, int64_t offset, int32_t dtype,
                                           int32_t device, int32_t index, Handle* result);
int32_t aoti_torch_delete_tensor_object(Handle tensor);
int32_t aoti_torch_empty_strided(int64_t dim, const int64_t* sizes, const int64_t* strides,
                                 int32_t dtype, int32_t device, int32_t index, Handle* result);
int32_t aoti_torch_get_data_ptr(Handle tensor, void** data);
int32_t aoti_torch_get_device_type(Handle tensor, int32_t* type);
int32_t aoti_torch_get_dim(Handle tensor, int64_t* dim);
int32_t aoti_torch_get_dtype(Handle tensor, int32_t* dtype);
int32_t aoti_torch_get_sizes(Handle tensor, int64_t** sizes);
int32_t aoti_record_function_start(const char* name, void* kwargs, const void* inputs,
                                   uint64_t count, void** guard);
int32_t aoti_record_function_end(void* guard);
}

namespace ingot::test {

inline constexpr int32_t kUint8 = 0, kInt64 = 4, kFloat32 = 6;  // c10::ScalarType

// Ends a handle as generated code does.
struct Ended {
  explicit Ended(Handle ours) : handle(ours) {}
  Ended(const Ended&) = delete;
  ~Ended() {
    if (handle) aoti_torch_delete_tensor_object(handle);
  }
  void* data() const {
    void* memory = nullptr;
    aoti_torch_get_data_ptr(handle, &memory);
    return memory;
  }
  Handle handle;
};

// One step: `inputs` are ended by the caller. Gives logits [R, kVocab] float32.
Handle run_step(const StepArrays& inputs, Handle salt, void* stream);
// What the device's tensors say, as aoti_torch_get_device_type.
extern const int32_t kDeviceType;
// Ends what steps keep.
void end_steps();

}  // namespace ingot::test

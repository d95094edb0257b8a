// The aoti_torch_* C interface that AOTInductor's generated code calls, on our own tensors. Names
// and types are those of torch/csrc/inductor/aoti_torch/c/shim.h; a non-zero result is an error.
#include <cstdio>
#include <cstdlib>
#include <cstring>

#include "intercept.h"
#include "tensor.h"

using ingot::host::Tensor;
using ingot::host::WatchedCall;
using Handle = Tensor*;
#define ABI extern "C" __attribute__((visibility("default")))

// c10::DeviceType
constexpr int32_t kCpu = 0, kCuda = 1;

// Null: the CPU.
static const ingot_host_device* device_of(Handle t) {
  return t->storage ? t->storage->device : nullptr;
}

// ---- numbers that generated code asks for
ABI int32_t aoti_torch_device_type_cpu() { return kCpu; }
ABI int32_t aoti_torch_device_type_cuda() { return kCuda; }
ABI int32_t aoti_torch_dtype_uint8() { return ingot::host::kUInt8; }
ABI int32_t aoti_torch_dtype_int8() { return ingot::host::kInt8; }
ABI int32_t aoti_torch_dtype_int16() { return ingot::host::kInt16; }
ABI int32_t aoti_torch_dtype_int32() { return ingot::host::kInt32; }
ABI int32_t aoti_torch_dtype_int64() { return ingot::host::kInt64; }
ABI int32_t aoti_torch_dtype_float16() { return ingot::host::kFloat16; }
ABI int32_t aoti_torch_dtype_float32() { return ingot::host::kFloat32; }
ABI int32_t aoti_torch_dtype_float64() { return ingot::host::kFloat64; }
ABI int32_t aoti_torch_dtype_bool() { return ingot::host::kBool; }
ABI int32_t aoti_torch_dtype_bfloat16() { return ingot::host::kBFloat16; }
ABI int32_t aoti_torch_layout_strided() { return 0; }

// ---- autograd: never on
ABI bool aoti_torch_grad_mode_is_enabled() { return false; }
ABI void aoti_torch_grad_mode_set_enabled(bool) {}

// ---- what a tensor is
ABI int32_t aoti_torch_get_data_ptr(Handle t, void** data) {
  *data = t->data();
  return 0;
}
ABI int32_t aoti_torch_get_storage_size(Handle t, int64_t* bytes) {
  *bytes = t->storage ? static_cast<int64_t>(t->storage->bytes) : 0;
  return 0;
}
ABI int32_t aoti_torch_get_dim(Handle t, int64_t* dim) {
  *dim = t->dim;
  return 0;
}
ABI int32_t aoti_torch_get_numel(Handle t, int64_t* numel) {
  *numel = t->numel();
  return 0;
}
ABI int32_t aoti_torch_get_sizes(Handle t, int64_t** sizes) {
  *sizes = t->sizes;
  return 0;
}
ABI int32_t aoti_torch_get_strides(Handle t, int64_t** strides) {
  *strides = t->strides;
  return 0;
}
ABI int32_t aoti_torch_get_size(Handle t, int64_t d, int64_t* size) {
  if (d < 0 || d >= t->dim) return 1;
  *size = t->sizes[d];
  return 0;
}
ABI int32_t aoti_torch_get_stride(Handle t, int64_t d, int64_t* stride) {
  if (d < 0 || d >= t->dim) return 1;
  *stride = t->strides[d];
  return 0;
}
ABI int32_t aoti_torch_get_dtype(Handle t, int32_t* dtype) {
  *dtype = t->dtype;
  return 0;
}
ABI int32_t aoti_torch_get_device_type(Handle t, int32_t* type) {
  *type = device_of(t) ? kCuda : kCpu;
  return 0;
}
ABI int32_t aoti_torch_get_device_index(Handle t, int32_t* index) {
  *index = device_of(t) ? device_of(t)->index : 0;
  return 0;
}
ABI int32_t aoti_torch_get_storage_offset(Handle t, int64_t* offset) {
  *offset = t->offset;
  return 0;
}

// ---- making and ending tensors
static int32_t give(Tensor* tensor, Handle* result) {
  *result = tensor;
  return tensor ? 0 : 1;
}
// Whether this thread has such a device.
static bool has(int32_t device_type) {
  return device_type == kCpu || (device_type == kCuda && ingot::host::device);
}
static const ingot_host_device* chosen(int32_t device_type) {
  return device_type == kCuda ? ingot::host::device : nullptr;
}
ABI int32_t aoti_torch_delete_tensor_object(Handle t) {
  const WatchedCall call(__func__, nullptr, t);
  delete t;
  return 0;
}
ABI int32_t aoti_torch_new_uninitialized_tensor(Handle* result) {
  const WatchedCall call(__func__, result);
  return give(new Tensor, result);
}
ABI int32_t aoti_torch_new_tensor_handle(Handle t, Handle* result) {
  const WatchedCall call(__func__, result);
  auto* copy = new Tensor(*t);
  if (ingot::host::Copies* copies = ingot::host::Copies::collecting) copies->add(copy);
  return give(copy, result);
}
ABI int32_t aoti_torch_assign_tensors_out(Handle t, Handle* result) {
  const WatchedCall call(__func__, result);
  return give(new Tensor(*t), result);
}
ABI int32_t aoti_torch_empty_strided(int64_t dim, const int64_t* sizes, const int64_t* strides,
                                     int32_t dtype, int32_t device, int32_t, Handle* result) {
  const WatchedCall call(__func__, result);
  return give(has(device) ? Tensor::empty(dim, sizes, strides, dtype, chosen(device)) : nullptr,
              result);
}
ABI int32_t aoti_torch_create_tensor_from_blob(void* data, int64_t dim, const int64_t* sizes,
                                               const int64_t* strides, int64_t offset,
                                               int32_t dtype, int32_t device, int32_t,
                                               Handle* result) {
  const WatchedCall call(__func__, result);
  return give(has(device) ? Tensor::borrow(data, dim, sizes, strides, offset, dtype, chosen(device))
                          : nullptr,
              result);
}
ABI int32_t aoti_torch_create_tensor_from_blob_v2(void* data, int64_t dim, const int64_t* sizes,
                                                  const int64_t* strides, int64_t offset,
                                                  int32_t dtype, int32_t device, int32_t index,
                                                  Handle* result, int32_t, const uint8_t*,
                                                  int64_t) {
  return aoti_torch_create_tensor_from_blob(data, dim, sizes, strides, offset, dtype, device, index,
                                            result);
}
ABI int32_t aoti_torch__reinterpret_tensor(Handle t, int64_t dim, const int64_t* sizes,
                                           const int64_t* strides, int64_t offset_increment,
                                           Handle* result) {
  const WatchedCall call(__func__, result);
  if (dim > ingot::host::kMaxDims) return give(nullptr, result);
  auto* view = new Tensor(*t);
  view->shape(dim, sizes, strides);
  view->offset += offset_increment;
  return give(view, result);
}
// Copies element by element in row-major order of `to`; strides may differ, but not where a GPU's
// memory is one of the two: generated code has kernels for that. 0 on success.
static int32_t copy_elements(const Tensor& from, Tensor& to) {
  if (const auto* gpu = to.storage->device ? to.storage->device : from.storage->device) {
    if (std::memcmp(to.strides, from.strides, to.dim * sizeof *to.strides) != 0) return 1;
    const size_t bytes = static_cast<size_t>(to.numel()) * ingot::host::element_bytes(to.dtype);
    if (to.span_bytes() != bytes) return 1;
    return bytes ? gpu->copy(gpu->user, to.data(), from.data(), bytes) : 0;
  }
  const size_t bytes = ingot::host::element_bytes(to.dtype);
  int64_t index[ingot::host::kMaxDims] = {}, source = 0, target = 0;
  for (int64_t left = to.numel(); left > 0; left--) {
    std::memcpy(to.data() + target * bytes, from.data() + source * bytes, bytes);
    for (int64_t d = to.dim - 1; d >= 0; d--) {
      source += from.strides[d];
      target += to.strides[d];
      if (++index[d] < to.sizes[d]) break;
      source -= index[d] * from.strides[d];
      target -= index[d] * to.strides[d];
      index[d] = 0;
    }
  }
  return 0;
}
ABI int32_t aoti_torch_clone(Handle t, Handle* result) {
  const WatchedCall call(__func__, result);
  int64_t strides[ingot::host::kMaxDims], step = 1;
  for (int64_t d = t->dim - 1; d >= 0; d--) {
    strides[d] = step;
    step *= t->sizes[d] > 1 ? t->sizes[d] : 1;
  }
  Tensor* copy = Tensor::empty(t->dim, t->sizes, strides, t->dtype, device_of(t));
  if (copy && copy_elements(*t, *copy) != 0) {
    delete copy;
    copy = nullptr;
  }
  return give(copy, result);
}
ABI int32_t aoti_torch_copy_(Handle to, Handle from, int32_t) {
  const WatchedCall call(__func__, nullptr);
  if (to->dim != from->dim || to->dtype != from->dtype ||
      std::memcmp(to->sizes, from->sizes, to->dim * sizeof *to->sizes) != 0)
    return 1;
  return copy_elements(*from, *to);
}

// ---- failures inside generated code. Inputs are checked before a run, so this is a defect, and it
// may come from inside a parallel region, where nothing can be thrown: say it and end.
ABI void aoti_torch_check(bool condition, const char* function, const char* file, uint32_t line,
                          const char* message) {
  if (condition) return;
  std::fprintf(stderr, "ingot: generated code failed at %s:%u in %s: %s\n", file, line, function,
               message);
  std::abort();
}
ABI void aoti_torch_warn(const char* function, const char* file, uint32_t line,
                         const char* message) {
  std::fprintf(stderr, "ingot: warning from generated code at %s:%u in %s: %s\n", file, line,
               function, message);
}

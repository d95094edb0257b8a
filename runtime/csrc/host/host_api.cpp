#include "host_api.h"

#include "tensor.h"
#include "trace.h"

namespace ingot::host {
namespace {
int32_t tensor_borrow(void* data, int64_t dim, const int64_t* sizes, const int64_t* strides,
                      int32_t scalar_type, void** tensor) {
  *tensor = Tensor::borrow(data, dim, sizes, strides, 0, scalar_type);
  return *tensor ? 0 : 1;
}
void tensor_delete(void* tensor) { delete static_cast<Tensor*>(tensor); }
void* tensor_data(void* tensor) { return static_cast<Tensor*>(tensor)->data(); }
void tensor_describe(void* handle, int64_t* dim, const int64_t** sizes, const int64_t** strides,
                     int32_t* scalar_type, int32_t* owned) {
  const Tensor& tensor = *static_cast<Tensor*>(handle);
  *dim = tensor.dim;
  *sizes = tensor.sizes;
  *strides = tensor.strides;
  *scalar_type = tensor.dtype;
  *owned = tensor.storage->owned;
}
}  // namespace
}  // namespace ingot::host

extern "C" __attribute__((visibility("default"))) const ingot_host_api* ingot_host_get_api() {
  using namespace ingot::host;
  static const ingot_host_api api{sizeof(ingot_host_api), tensor_borrow, tensor_delete, tensor_data,
                                  tensor_describe,        trace_enable,  trace_collect};
  return &api;
}

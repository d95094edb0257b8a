#include "host_api.h"

#include <string>

#include "controls/table.h"
#include "intercept.h"
#include "tensor.h"
#include "trace.h"

namespace ingot::host {
namespace {
int32_t tensor_borrow(void* data, int64_t dim, const int64_t* sizes, const int64_t* strides,
                      int32_t scalar_type, int32_t on_device, void** tensor) {
  auto** made = reinterpret_cast<Tensor**>(tensor);
  const WatchedCall call(__func__, made);
  *made = Tensor::borrow(data, dim, sizes, strides, 0, scalar_type, on_device ? device : nullptr);
  return *made ? 0 : 1;
}
void tensor_delete(void* tensor) {
  const WatchedCall call(__func__, nullptr, static_cast<Tensor*>(tensor));
  delete static_cast<Tensor*>(tensor);
}
void* tensor_data(void* tensor) { return static_cast<Tensor*>(tensor)->data(); }
void tensor_describe(void* handle, int64_t* dim, const int64_t** sizes, const int64_t** strides,
                     int32_t* scalar_type, int32_t* owned, int32_t* on_device) {
  const Tensor& tensor = *static_cast<Tensor*>(handle);
  *dim = tensor.dim;
  *sizes = tensor.sizes;
  *strides = tensor.strides;
  *scalar_type = tensor.dtype;
  *owned = tensor.storage->owned;
  *on_device = tensor.storage->device != nullptr;
}
void device_use(const ingot_host_device* used) { device = used; }
const ingot_host_device* device_in_use() { return device; }
int32_t controls_watch_data() { return is_watched(kData); }
void* copies_begin() { return Copies::collecting = new Copies; }
void copies_end() { Copies::collecting = nullptr; }
void copies_delete(void* copies) { delete static_cast<Copies*>(copies); }

// A control's refusal as a sentence.
template <class Body>
const char* sentence_of(Body body) {
  thread_local std::string sentence;
  try {
    body();
    return nullptr;
  } catch (const ControlError& error) {
    sentence = error.what();
    return sentence.c_str();
  }
}
const char* control_set(const char* name, const char* value) {
  return sentence_of([&] { set_control(name, value); });
}
const char* controls_from_environment() { return sentence_of(set_controls_from_environment); }
const char* controls_report() { return sentence_of(report_controls); }
}  // namespace
}  // namespace ingot::host

extern "C" __attribute__((visibility("default"))) const ingot_host_api* ingot_host_get_api() {
  using namespace ingot::host;
  static const ingot_host_api api{sizeof(ingot_host_api),
                                  tensor_borrow,
                                  tensor_delete,
                                  tensor_data,
                                  tensor_describe,
                                  copies_begin,
                                  copies_end,
                                  copies_delete,
                                  trace_enable,
                                  trace_collect,
                                  trace_add,
                                  device_use,
                                  device_in_use,
                                  controls_watch_data,
                                  run_begins,
                                  run_ends,
                                  control_row,
                                  control_set,
                                  controls_from_environment,
                                  controls_report};
  return &api;
}

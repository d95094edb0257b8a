#include "host_api.h"

#include <unistd.h>

#include <atomic>
#include <mutex>
#include <string>
#include <vector>

#include "controls/table.h"
#include "intercept.h"
#include "tensor.h"

namespace ingot::host {
namespace {
std::atomic<bool> tracing{false};
std::mutex events_mutex;
std::vector<ingot_host_event> events;

int32_t tensor_borrow(void* data, int64_t dim, const int64_t* sizes, const int64_t* strides,
                      int32_t scalar_type, void** tensor) {
  auto** made = reinterpret_cast<Tensor**>(tensor);
  const WatchedCall call(__func__, made);
  *made = Tensor::borrow(data, dim, sizes, strides, 0, scalar_type);
  return *made ? 0 : 1;
}
void tensor_delete(void* tensor) {
  const WatchedCall call(__func__, nullptr, static_cast<Tensor*>(tensor));
  delete static_cast<Tensor*>(tensor);
}
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
void* copies_begin() { return Copies::collecting = new Copies; }
void copies_end() { Copies::collecting = nullptr; }
void copies_delete(void* copies) { delete static_cast<Copies*>(copies); }
void trace_enable(int32_t on) { tracing.store(on != 0, std::memory_order_relaxed); }

void trace_collect(void (*take)(const ingot_host_event*, void*), void* user) {
  std::vector<ingot_host_event> taken;
  {
    std::lock_guard lock(events_mutex);
    taken.swap(events);
  }
  for (const ingot_host_event& event : taken) take(&event, user);
}

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

// Generated code brackets every kernel and op call with these two. Off, the start is one load.
extern "C" __attribute__((visibility("default"))) int32_t
aoti_record_function_start(const char* name, void*, const void*, uint64_t, void** guard) {
  using namespace ingot::host;
  *guard = nullptr;
  if (!tracing.load(std::memory_order_relaxed) && !is_watched(~0u)) return 0;
  kernel_begins(name);
  *guard = new ingot_host_event{name, now_ns(), 0, static_cast<int32_t>(gettid())};
  return 0;
}

extern "C" __attribute__((visibility("default"))) int32_t aoti_record_function_end(void* guard) {
  using namespace ingot::host;
  if (!guard) return 0;
  auto* event = static_cast<ingot_host_event*>(guard);
  event->duration_ns = now_ns() - event->start_ns;
  kernel_ends(event->name, event->duration_ns);
  if (tracing.load(std::memory_order_relaxed)) {
    std::lock_guard lock(events_mutex);
    events.push_back(*event);
  }
  delete event;
  return 0;
}

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
                                  run_begins,
                                  run_ends,
                                  control_row,
                                  control_set,
                                  controls_from_environment,
                                  controls_report};
  return &api;
}

#include "trace.h"

#include <atomic>

#include "../clock.h"
#include "../event_log.h"
#include "intercept.h"

namespace ingot::host {
namespace {
struct Call {
  const char* name;
  int64_t start_ns, duration_ns;
  bool traced;             // else only a control wants to hear of it
  bool on_device = false;  // whose own clock times it
};
std::atomic<bool> tracing{false};
thread_local Call open_call;  // the one between start and end: they do not nest
}  // namespace

// Release, and acquire below: who sees recording end also sees that its trace has ended.
void trace_enable(int32_t on) { tracing.store(on != 0, std::memory_order_release); }

void trace_add(const ingot_host_event* event) {
  EventLog<Call>::add({event->name, event->start_ns, event->duration_ns, true});
}

void trace_collect(void (*take)(const ingot_host_event*, void*), void* user) {
  EventLog<Call>::collect([&](const Call& call, int32_t thread) {
    const ingot_host_event event{call.name, call.start_ns, call.duration_ns, thread};
    take(&event, user);
  });
}
}  // namespace ingot::host

// Off, the start is two loads.
extern "C" __attribute__((visibility("default"))) int32_t
aoti_record_function_start(const char* name, void*, const void*, uint64_t, void** guard) {
  using namespace ingot::host;
  *guard = nullptr;
  const bool traced = tracing.load(std::memory_order_acquire);
  if (traced || is_watched(~0u)) {
    open_call = {name, ingot::now_ns(), 0, traced, traced && device};
    if (open_call.on_device) device->call_begins(device->user, name);
    kernel_begins(name);
    *guard = &open_call;
  }
  return 0;
}

extern "C" __attribute__((visibility("default"))) int32_t aoti_record_function_end(void* guard) {
  using namespace ingot::host;
  if (!guard) return 0;
  auto& call = *static_cast<Call*>(guard);
  call.duration_ns = ingot::now_ns() - call.start_ns;
  if (call.on_device)
    device->call_ends(device->user);
  else if (call.traced)
    ingot::EventLog<Call>::add(call);
  kernel_ends(call.name, call.duration_ns);
  return 0;
}

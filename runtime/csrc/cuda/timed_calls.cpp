#include "timed_calls.h"

#include "../clock.h"
#include "../host.h"

namespace ingot::cuda {
void TimedCalls::start(const Device& device) {
  used_ = 0;
  open_ = false;
  origin_.record(device);
  origin_.wait();
  origin_ns_ = now_ns();
}

void TimedCalls::begin(const Device& device, const char* name) {
  if (!origin_ns_) return;
  if (used_ == calls_.size()) calls_.emplace_back();
  calls_[used_].name = name;
  calls_[used_].before.record(device);
  open_ = true;
}

void TimedCalls::end(const Device& device) {
  if (!open_) return;
  calls_[used_++].after.record(device);
  open_ = false;
}

void TimedCalls::tell() {
  if (!origin_ns_) return;
  for (size_t i = 0; i < used_; i++) {
    const Call& call = calls_[i];
    const ingot_host_event event{call.name, origin_ns_ + origin_.until(call.before),
                                 call.before.until(call.after), 0};
    host().trace_add(&event);
  }
  origin_ns_ = 0;
}
}  // namespace ingot::cuda

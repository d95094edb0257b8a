// A GPU as generated code's host sees it: the device, the memory of temporaries, the times of
// calls.
#pragma once
#include <memory>

#include "../host/host_api.h"
#include "device.h"
#include "pool.h"
#include "timed_calls.h"

namespace ingot::cuda {
class Gpu {
 public:
  explicit Gpu(DeviceId id);
  ~Gpu();
  Gpu(const Gpu&) = delete;
  Gpu& operator=(const Gpu&) = delete;

  const Device& device() const { return device_; }
  Pool& pool() { return pool_; }
  TimedCalls& calls() { return *calls_; }
  const ingot_host_device& hooks() const { return hooks_; }

 private:
  Device device_;
  Pool pool_;
  std::unique_ptr<TimedCalls> calls_;
  ingot_host_device hooks_;
};

// The GPU of this thread, for CUDA and for the host, for as long as this lives.
class InUse {
 public:
  explicit InUse(const Gpu& gpu);
  ~InUse();
  InUse(const InUse&) = delete;
  InUse& operator=(const InUse&) = delete;

 private:
  const Current current_;
  const ingot_host_device* const before_;
};
}  // namespace ingot::cuda

// How long calls of generated code take on the GPU, for traces: an event before and one after each.
#pragma once
#include <cstdint>
#include <vector>

#include "device.h"

namespace ingot::cuda {
class TimedCalls {
 public:
  // From here on, calls are timed until `tell`. Waits for the stream, to know what time it is
  // there.
  void start(const Device& device);
  void begin(const Device& device, const char* name);
  void end(const Device& device);
  // Hands all times to the host's trace, as of this thread. The stream must be empty.
  void tell();

 private:
  struct Call {
    Event before, after;
    const char* name = nullptr;
  };
  std::vector<Call> calls_;  // events are kept for the next time
  size_t used_ = 0;
  Event origin_;
  int64_t origin_ns_ = 0;  // 0: nothing is timed
  bool open_ = false;
};
}  // namespace ingot::cuda

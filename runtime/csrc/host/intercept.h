// Where the controls hook into the host: every op call, every tensor made or ended, every kernel
// and every run of a graph. While no control is on, each hook is one relaxed load.
#pragma once
#include <atomic>
#include <cstdint>
#include <memory>
#include <vector>

#include "controls/control.h"
#include "tensor.h"

namespace ingot::host {
using Controls = std::vector<std::unique_ptr<Control>>;

// Puts these controls on in place of those before, which are given back.
Controls intercept(Controls controls);

extern std::atomic<uint32_t> watched;  // the interests of all controls that are on
inline bool is_watched(uint32_t interests) {
  return (watched.load(std::memory_order_relaxed) & interests) != 0;
}

// A call of generated code that makes `*made` or ends `ended`, while it lasts.
class WatchedCall {
 public:
  explicit WatchedCall(const char* function, Tensor** made, const Tensor* ended = nullptr)
      : function_(function), made_(made) {
    if (is_watched(kTensors)) begin(ended);
  }
  ~WatchedCall() {
    if (start_ns_) end();
  }
  WatchedCall(const WatchedCall&) = delete;
  WatchedCall& operator=(const WatchedCall&) = delete;

 private:
  void begin(const Tensor* ended);
  void end();

  const char* function_;
  Tensor** made_;
  int64_t start_ns_ = 0;
};

// A kernel or op call of generated code, from aoti_record_function_start to _end.
void kernel_begins(const char* name);
void kernel_ends(const char* name, int64_t duration_ns);

// One run of a graph on this thread; `sizes` of its first input.
void run_begins(int64_t dim, const int64_t* sizes);
void run_ends();
}  // namespace ingot::host

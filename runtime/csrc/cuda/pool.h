// The GPU's memory of temporaries, of one stream: what generated code frees, it may take again at
// once, since the stream runs in order. Nothing goes back to the driver but by `trim`, so that the
// addresses in captured graphs stay valid.
#pragma once
#include <cstddef>
#include <unordered_map>
#include <vector>

#include "device.h"

namespace ingot::cuda {
class Pool {
 public:
  Pool() = default;
  ~Pool();
  Pool(const Pool&) = delete;
  Pool& operator=(const Pool&) = delete;

  // 256-byte aligned. Null where the driver gives no more, which `ran_out` then tells, once.
  void* allocate(size_t bytes) noexcept;
  void release(void* memory, size_t bytes) noexcept;  // `bytes` as it was asked for
  bool ran_out() noexcept;
  // Gives what is free back. No graph that was captured before may be launched again.
  void trim() noexcept;
  size_t bytes() const { return bytes_; }  // that it holds, in use or free

 private:
  std::unordered_map<size_t, std::vector<Address>> free_;  // by size
  size_t bytes_ = 0;
  bool ran_out_ = false;
};
}  // namespace ingot::cuda

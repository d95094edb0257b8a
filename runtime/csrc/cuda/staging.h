// A step's inputs on their way to the GPU: one after the other in one pinned block, so that one
// copy takes them all.
#pragma once
#include <cstddef>
#include <vector>

#include "../signature.h"
#include "device.h"

namespace ingot::cuda {
class Staging {
 public:
  // Makes room for arrays of these dtypes and shapes; what is on the GPU already needs none. The
  // copy before must have ended.
  void lay_out(const std::vector<Array>& arrays);
  // Where array `index` is to be written.
  char* at(size_t index) const { return memory_.data() + offsets_[index]; }
  size_t bytes() const { return bytes_; }
  // Enqueues the copy to `to`, of bytes() at least.
  void send(const Device& device, char* to) const {
    device.copy_to_device(to, memory_.data(), bytes_);
  }
  // The same arrays as they will be there.
  std::vector<Array> arrays_at(char* to) const;

 private:
  PinnedBuffer memory_;
  std::vector<Array> arrays_;
  std::vector<size_t> offsets_;
  size_t bytes_ = 0;
};
}  // namespace ingot::cuda

#include "staging.h"

namespace ingot::cuda {
namespace {
constexpr size_t kAlignment = 256;  // as of an allocation
}

void Staging::lay_out(const std::vector<Array>& arrays) {
  arrays_ = arrays;
  offsets_.clear();
  bytes_ = 0;
  for (const Array& array : arrays) {
    offsets_.push_back(bytes_);
    if (!array.on_gpu) bytes_ += (byte_count(array) + kAlignment - 1) / kAlignment * kAlignment;
  }
  memory_.grow(bytes_);
}

std::vector<Array> Staging::arrays_at(char* to) const {
  std::vector<Array> there = arrays_;
  for (size_t i = 0; i < there.size(); i++) {
    if (there[i].on_gpu) continue;
    there[i].data = to + offsets_[i];
    there[i].on_gpu = true;
  }
  return there;
}
}  // namespace ingot::cuda

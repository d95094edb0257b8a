// The elements of a tensor that may lie in memory with strides, in row-major order.
#pragma once
#include <cstddef>
#include <vector>

#include "dltensor.h"

namespace ingot::host {
int64_t element_count(const DLTensor& tensor);

class Elements {
 public:
  // Borrows a contiguous tensor's memory, copies any other's.
  explicit Elements(const DLTensor& tensor);
  const char* data() const { return data_; }
  size_t bytes() const { return bytes_; }

 private:
  std::vector<char> copy_;
  const char* data_;
  size_t bytes_;
};
}  // namespace ingot::host

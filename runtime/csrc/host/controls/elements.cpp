#include "elements.h"

#include <cstring>

namespace ingot::host {
namespace {
bool is_contiguous(const DLTensor& tensor) {
  int64_t step = 1;
  for (int32_t d = tensor.ndim - 1; d >= 0; d--) {
    if (tensor.shape[d] != 1 && tensor.strides[d] != step) return false;
    step *= tensor.shape[d];
  }
  return true;
}
}  // namespace

int64_t element_count(const DLTensor& tensor) {
  int64_t count = 1;
  for (int32_t d = 0; d < tensor.ndim; d++) count *= tensor.shape[d];
  return count;
}

Elements::Elements(const DLTensor& tensor) {
  const size_t size = tensor.dtype.bits / 8;
  const auto* from = static_cast<const char*>(tensor.data) + tensor.byte_offset;
  const int64_t count = element_count(tensor);
  data_ = from;
  bytes_ = count * size;
  if (bytes_ == 0 || is_contiguous(tensor)) return;
  copy_.resize(bytes_);
  for (int64_t i = 0; i < count; i++) {
    int64_t rest = i, offset = 0;
    for (int32_t d = tensor.ndim - 1; d >= 0; rest /= tensor.shape[d--])
      offset += rest % tensor.shape[d] * tensor.strides[d];
    std::memcpy(copy_.data() + i * size, from + offset * static_cast<int64_t>(size), size);
  }
  data_ = copy_.data();
}
}  // namespace ingot::host

// What the code of a repeated block takes its tensors by (export/repeated.py): handles that stay
// the caller's, with the names that generated code calls handles of its own by. The headers are
// those of cpu.h or cuda.h in torch/csrc/inductor/aoti_include without the model's class, which
// blocks are not.
#pragma once

#include <c10/util/generic_math.h>
#include <torch/csrc/inductor/aoti_runtime/interface.h>
#include <torch/csrc/inductor/aoti_runtime/kernel_context_tls.h>
#include <torch/csrc/inductor/aoti_runtime/scalar_to_tensor.h>
#include <torch/csrc/inductor/aoti_runtime/utils.h>
#ifdef USE_CUDA
#include <torch/csrc/inductor/cpp_wrapper/device_internal/cuda.h>

#include <filesystem>
#else
#include <torch/csrc/inductor/cpp_wrapper/device_internal/cpu.h>
#endif

#include <array>
#include <optional>
#include <vector>

namespace torch::aot_inductor {

class Borrowed {
 public:
  Borrowed(AtenTensorHandle handle) : handle_(handle) {}

  operator AtenTensorHandle() const { return handle_; }

  AtenTensorHandle get() const { return handle_; }

  void reset() const {}

  void* data_ptr() const {
    void* result = nullptr;
    AOTI_TORCH_ERROR_CODE_CHECK(aoti_torch_get_data_ptr(handle_, &result));
    return result;
  }

  int64_t* sizes() const {
    int64_t* result = nullptr;
    AOTI_TORCH_ERROR_CODE_CHECK(aoti_torch_get_sizes(handle_, &result));
    return result;
  }

  int64_t* strides() const {
    int64_t* result = nullptr;
    AOTI_TORCH_ERROR_CODE_CHECK(aoti_torch_get_strides(handle_, &result));
    return result;
  }

 private:
  AtenTensorHandle handle_;
};

struct BorrowedHandles {
  AtenTensorHandle* handles;

  Borrowed operator[](size_t place) const { return handles[place]; }

  void clear() const {}
};

// Runs blocks in turn: `x` is what the next one reads.
template <size_t n>
class Blocks {
 public:
  Blocks(std::array<AtenTensorHandle, n> first, const AtenTensorHandle* read, int64_t reads,
         const AtenTensorHandle* written)
      : given_(first), read_(read), reads_(reads), written_(written) {}

  // tensors: which of those that are read, then of those that are written, `block` is given.
  void operator()(void (*block)(AtenTensorHandle*, AtenTensorHandle*),
                  std::initializer_list<int> tensors) {
    inputs_.assign(given_.begin(), given_.end());
    for (int place : tensors)
      inputs_.push_back(place < reads_ ? read_[place] : written_[place - reads_]);
    block(inputs_.data(), given_.data());
    for (size_t i = 0; i < n; ++i) x[i] = RAIIAtenTensorHandle(given_[i]);
  }

  std::array<RAIIAtenTensorHandle, n> x;

 private:
  std::array<AtenTensorHandle, n> given_;
  std::vector<AtenTensorHandle> inputs_;
  const AtenTensorHandle* read_;
  int64_t reads_;
  const AtenTensorHandle* written_;
};

}  // namespace torch::aot_inductor

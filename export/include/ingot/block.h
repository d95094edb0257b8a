// What the code of a repeated block takes its tensors by (export/repeated.py): handles with the
// names that generated code calls handles of its own by. The headers are those of cpu.h or cuda.h
// in torch/csrc/inductor/aoti_include without the model's class, which blocks are not.
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
#include <utility>
#include <vector>

namespace torch::aot_inductor {

// A handle that may be its holder's own, which ends with its last use, or stay the caller's.
class Input {
 public:
  explicit Input(AtenTensorHandle handle = nullptr, bool owned = false)
      : handle_(handle), owned_(owned) {}

  Input(Input&& other) noexcept
      : handle_(other.handle_), owned_(std::exchange(other.owned_, false)) {}

  Input& operator=(Input&& other) noexcept {
    std::swap(handle_, other.handle_);
    std::swap(owned_, other.owned_);
    return *this;
  }

  ~Input() { reset(); }

  operator AtenTensorHandle() const { return handle_; }

  AtenTensorHandle get() const { return handle_; }

  // A handle that is the caller of this function's own.
  AtenTensorHandle release() {
    if (!std::exchange(owned_, false))
      AOTI_TORCH_ERROR_CODE_CHECK(aoti_torch_new_tensor_handle(handle_, &handle_));
    return handle_;
  }

  void reset() {
    if (std::exchange(owned_, false)) aoti_torch_delete_tensor_object(handle_);
  }

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
  bool owned_;
};

// Of a call: the first `xs` are as they are in `x`, the rest stay the caller's.
class Inputs {
 public:
  Inputs(const AtenTensorHandle* handles, Input* x, size_t xs)
      : handles_(handles), x_(x), xs_(xs) {}

  Input operator[](size_t place) const {
    return place < xs_ ? std::move(x_[place]) : Input(handles_[place - xs_]);
  }

  AtenTensorHandle first() const { return x_[0]; }

  void clear() const {}

 private:
  const AtenTensorHandle* handles_;
  Input* x_;
  size_t xs_;
};

// Runs blocks in turn: `x` is what the next one reads.
template <size_t n>
class Blocks {
 public:
  Blocks(std::array<Input, n> first, const AtenTensorHandle* read, int64_t reads,
         const AtenTensorHandle* written)
      : x(std::move(first)), read_(read), reads_(reads), written_(written) {}

  // tensors: which of those that are read, then of those that are written, `block` is given.
  void operator()(void (*block)(Inputs, AtenTensorHandle*), std::initializer_list<int> tensors) {
    others_.clear();
    for (int place : tensors)
      others_.push_back(place < reads_ ? read_[place] : written_[place - reads_]);
    AtenTensorHandle made[n];
    block(Inputs(others_.data(), x.data(), n), made);
    for (size_t i = 0; i < n; ++i) x[i] = Input(made[i], true);
  }

  std::array<Input, n> x;

 private:
  std::vector<AtenTensorHandle> others_;
  const AtenTensorHandle* read_;
  int64_t reads_;
  const AtenTensorHandle* written_;
};

}  // namespace torch::aot_inductor

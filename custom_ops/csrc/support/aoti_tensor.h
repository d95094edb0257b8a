// Between AOTInductor's tensor handles and DLTensor, for the generated shims (ops_shims.cpp).
// The functions are AOTInductor's C ABI (torch/csrc/inductor/aoti_torch/c/shim.h); the host that
// the shims are compiled into provides them: our own, or libtorch.
#pragma once

#include <cstdint>
#include <cstdio>

#include "ops_api.h"

struct AtenTensorOpaque;
using AtenTensorHandle = AtenTensorOpaque*;

extern "C" {
int32_t aoti_torch_get_data_ptr(AtenTensorHandle tensor, void** data);
int32_t aoti_torch_get_dim(AtenTensorHandle tensor, int64_t* dim);
int32_t aoti_torch_get_sizes(AtenTensorHandle tensor, int64_t** sizes);
int32_t aoti_torch_get_strides(AtenTensorHandle tensor, int64_t** strides);
int32_t aoti_torch_get_dtype(AtenTensorHandle tensor, int32_t* dtype);
int32_t aoti_torch_get_device_type(AtenTensorHandle tensor, int32_t* device_type);
int32_t aoti_torch_get_device_index(AtenTensorHandle tensor, int32_t* device_index);
int32_t aoti_torch_get_current_cuda_stream(int32_t device_index, void** stream);
int32_t aoti_torch_empty_strided(int64_t dim, const int64_t* sizes, const int64_t* strides,
                                 int32_t dtype, int32_t device_type, int32_t device_index,
                                 AtenTensorHandle* tensor);
int32_t aoti_torch_delete_tensor_object(AtenTensorHandle tensor);
}

namespace ingot {

inline constexpr int32_t kDlpackFirst = 1;  // c10 counts CPU 0, CUDA 1; DLPack CPU 1, CUDA 2

// The codes of c10::ScalarType (c10/core/ScalarType.h): fixed, since torch writes them into files.
struct ScalarType {
  int32_t code;
  DLDataType dtype;
};
inline constexpr ScalarType kScalarTypes[] = {
    {0, {kDLUInt, 8, 1}},  {1, {kDLInt, 8, 1}},      {2, {kDLInt, 16, 1}},   {3, {kDLInt, 32, 1}},
    {4, {kDLInt, 64, 1}},  {5, {kDLFloat, 16, 1}},   {6, {kDLFloat, 32, 1}}, {7, {kDLFloat, 64, 1}},
    {11, {kDLBool, 8, 1}}, {15, {kDLBfloat, 16, 1}},
};

// An input: a null pointer stays null, anything else is seen in place.
class TensorView {
 public:
  explicit TensorView(AtenTensorHandle handle) : present_(true) { read(handle); }
  explicit TensorView(const AtenTensorHandle* optional) : present_(optional != nullptr) {
    if (present_) read(*optional);
  }
  DLTensor* get() { return present_ ? &tensor_ : nullptr; }

 private:
  void read(AtenTensorHandle handle) {
    int64_t dim = 0;
    int32_t code = -1;
    int32_t device = 0;
    aoti_torch_get_data_ptr(handle, &tensor_.data);
    aoti_torch_get_dim(handle, &dim);
    aoti_torch_get_sizes(handle, &tensor_.shape);
    aoti_torch_get_strides(handle, &tensor_.strides);
    aoti_torch_get_dtype(handle, &code);
    aoti_torch_get_device_type(handle, &device);
    tensor_.ndim = static_cast<int32_t>(dim);
    tensor_.device = {device + kDlpackFirst, 0};
    if (tensor_.device.device_type != kDLCPU) {
      aoti_torch_get_device_index(handle, &tensor_.device.device_id);
    }
    for (const ScalarType& type : kScalarTypes) {
      if (type.code == code) tensor_.dtype = type.dtype;
    }
  }

  bool present_;
  DLTensor tensor_{};  // a dtype that is not in the table stays int0, which no op accepts
};

// An output: asks for its shape, then owns a new contiguous tensor until released to the caller.
class OutputTensor {
 public:
  explicit OutputTensor(DLDevice device) {
    tensor_.shape = shape_;
    tensor_.strides = strides_;
    tensor_.device = device;
  }
  OutputTensor(const OutputTensor&) = delete;
  OutputTensor& operator=(const OutputTensor&) = delete;
  ~OutputTensor() {
    if (handle_ != nullptr) aoti_torch_delete_tensor_object(handle_);
  }

  DLTensor* get() { return &tensor_; }

  bool allocate() {
    int64_t stride = 1;
    for (int i = tensor_.ndim - 1; i >= 0; i--) {
      strides_[i] = stride;
      stride *= shape_[i] > 0 ? shape_[i] : 1;
    }
    for (const ScalarType& type : kScalarTypes) {
      if (type.dtype.code != tensor_.dtype.code || type.dtype.bits != tensor_.dtype.bits) continue;
      const DLDevice device = tensor_.device;
      return aoti_torch_empty_strided(tensor_.ndim, shape_, strides_, type.code,
                                      device.device_type - kDlpackFirst, device.device_id,
                                      &handle_) == 0 &&
             aoti_torch_get_data_ptr(handle_, &tensor_.data) == 0;
    }
    return false;
  }

  AtenTensorHandle release() {
    AtenTensorHandle handle = handle_;
    handle_ = nullptr;
    return handle;
  }

 private:
  DLTensor tensor_{};
  int64_t shape_[8] = {};
  int64_t strides_[8] = {};
  AtenTensorHandle handle_ = nullptr;
};

inline int32_t failed_with(const char* sentence) {
  fprintf(stderr, "ingot: %s\n", sentence);
  return 1;
}

}  // namespace ingot

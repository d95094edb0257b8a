#include "tensor.h"

#include <cstring>
#include <new>
#include <utility>

#include "intercept.h"
#include "pool.h"

namespace ingot::host {
size_t element_bytes(int32_t scalar_type) {
  switch (scalar_type) {
    case kUInt8:
    case kInt8:
    case kBool:
      return 1;
    case kInt16:
    case kFloat16:
    case kBFloat16:
      return 2;
    case kInt32:
    case kFloat32:
      return 4;
    default:
      return 8;
  }
}

#if defined(__SANITIZE_ADDRESS__)  // a pool would hide what is used after its end
void* Pooled::operator new(size_t bytes) { return ::operator new(bytes); }
void Pooled::operator delete(void* object, size_t) { ::operator delete(object); }
#else
void* Pooled::operator new(size_t bytes) { return pool_allocate(bytes); }
void Pooled::operator delete(void* object, size_t bytes) {
  pool_free(static_cast<char*>(object), bytes);
}
#endif

constinit thread_local const ingot_host_device* device = nullptr;

void Storage::release() {
  if (references.fetch_sub(1, std::memory_order_acq_rel) != 1) return;
  if (owned && device)
    device->release(device->user, data, bytes);
  else if (owned)
    pool_free(data, bytes);
  delete this;
}

Tensor::Tensor(const Tensor& other)
    : storage(other.storage), offset(other.offset), dtype(other.dtype) {
  shape(other.dim, other.sizes, other.strides);
  if (storage) storage->retain();
}

Tensor::~Tensor() {
  if (copies) copies->remove(this);
  if (storage) storage->release();
}

void Tensor::shape(int64_t ndim, const int64_t* size, const int64_t* stride) {
  dim = ndim;
  std::memcpy(sizes, size, ndim * sizeof *size);
  std::memcpy(strides, stride, ndim * sizeof *stride);
}

char* Tensor::data() const {
  return storage ? storage->data + offset * element_bytes(dtype) : nullptr;
}

int64_t Tensor::numel() const {
  int64_t count = 1;
  for (int64_t i = 0; i < dim; i++) count *= sizes[i];
  return count;
}

size_t Tensor::span_bytes() const {
  int64_t last = 0;
  for (int64_t i = 0; i < dim; i++) {
    if (sizes[i] == 0) return 0;
    last += (sizes[i] - 1) * strides[i];
  }
  return (last + 1) * element_bytes(dtype);
}

Tensor* Tensor::empty(int64_t ndim, const int64_t* size, const int64_t* stride, int32_t dtype,
                      const ingot_host_device* on) {
  if (ndim > kMaxDims) return nullptr;
  auto* tensor = new Tensor;
  tensor->dtype = dtype;
  tensor->shape(ndim, size, stride);
  const size_t bytes = tensor->span_bytes();
  void* memory = on ? on->allocate(on->user, bytes) : pool_allocate(bytes);
  if (!memory) {
    delete tensor;
    return nullptr;
  }
  tensor->storage = new Storage(static_cast<char*>(memory), bytes, true, on);
  return tensor;
}

Tensor* Tensor::borrow(void* data, int64_t ndim, const int64_t* size, const int64_t* stride,
                       int64_t offset, int32_t dtype, const ingot_host_device* on) {
  if (ndim > kMaxDims) return nullptr;
  auto* tensor = new Tensor;
  tensor->dtype = dtype;
  tensor->shape(ndim, size, stride);
  tensor->offset = offset;
  const size_t bytes = offset * element_bytes(dtype) + tensor->span_bytes();
  tensor->storage = new Storage(static_cast<char*>(data), bytes, false, on);
  return tensor;
}

thread_local Copies* Copies::collecting = nullptr;

void Copies::add(Tensor* tensor) {
  tensor->copies = this;
  tensors_.insert(tensor);
}

Copies::~Copies() {
  for (Tensor* tensor : std::exchange(tensors_, {})) {
    const WatchedCall call("~Copies", nullptr, tensor);
    delete tensor;
  }
}
}  // namespace ingot::host

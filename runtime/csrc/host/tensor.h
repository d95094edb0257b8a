// Tensors of the lean host: what generated code holds as AtenTensorHandle.
#pragma once
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <set>

#include "host_api.h"

namespace ingot::host {
inline constexpr int kMaxDims = 16;

// c10::ScalarType, the numbers that generated code uses.
enum ScalarType : int32_t {
  kUInt8 = 0,
  kInt8 = 1,
  kInt16 = 2,
  kInt32 = 3,
  kInt64 = 4,
  kFloat16 = 5,
  kFloat32 = 6,
  kFloat64 = 7,
  kBool = 11,
  kBFloat16 = 15
};
size_t element_bytes(int32_t scalar_type);

// Objects that a step makes and drops by the hundred, in the pool's memory.
struct Pooled {
  static void* operator new(size_t bytes);
  static void operator delete(void* object, size_t bytes);
};

// The GPU whose memory this thread's tensors are in, if any; see ingot_host_device.
extern constinit thread_local const ingot_host_device* device;

// Memory shared by tensors; owned ones go back to the pool, borrowed ones (weights, KV) stay.
struct Storage : Pooled {
  std::atomic<int32_t> references{1};
  char* data;
  size_t bytes;
  bool owned;
  const ingot_host_device* device;  // null: the CPU's

  Storage(char* memory, size_t size, bool own, const ingot_host_device* on)
      : data(memory), bytes(size), owned(own), device(on) {}
  void retain() { references.fetch_add(1, std::memory_order_relaxed); }
  void release();
};

class Copies;

struct Tensor : Pooled {
  Storage* storage = nullptr;
  int64_t offset = 0;  // in elements
  int64_t dim = 0;
  int64_t sizes[kMaxDims];
  int64_t strides[kMaxDims];
  int32_t dtype = kFloat32;
  Copies* copies = nullptr;  // who ends it if nobody else does

  Tensor() = default;
  Tensor(const Tensor& other);  // another view of the same storage
  ~Tensor();
  void shape(int64_t ndim, const int64_t* size, const int64_t* stride);
  char* data() const;
  int64_t numel() const;
  size_t span_bytes() const;  // from the first element to the end of the last

  // On a device, or on the CPU where that is null. Null where it cannot be.
  static Tensor* empty(int64_t ndim, const int64_t* size, const int64_t* stride, int32_t dtype,
                       const ingot_host_device* on);
  static Tensor* borrow(void* data, int64_t ndim, const int64_t* size, const int64_t* stride,
                        int64_t offset, int32_t dtype, const ingot_host_device* on);
};

// Handles that generated code copies and may forget: AOTInductor copies each constant's when it is
// bound, and does not free the copy (MaybeOwningAtenTensorHandle, torch 2.13).
class Copies {
 public:
  ~Copies();
  void add(Tensor* tensor);
  void remove(Tensor* tensor) { tensors_.erase(tensor); }

  static thread_local Copies* collecting;  // those made on this thread; null: none

 private:
  std::set<Tensor*> tensors_;
};
}  // namespace ingot::host

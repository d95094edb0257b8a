#include "support.h"

#include <cstdarg>
#include <cstdio>
#include <cstring>
#include <utility>

namespace ingot {
namespace {

constexpr size_t kErrorBytes = 512;
thread_local char t_error[kErrorBytes];
thread_local bool t_ran_out = false;

// A sentence's part, appended to a fixed buffer: an error must not need memory.
class Text {
 public:
  [[gnu::format(printf, 2, 3)]] void add(const char* format, ...) {
    va_list arguments;
    va_start(arguments, format);
    const int added = vsnprintf(text_ + used_, sizeof(text_) - used_, format, arguments);
    va_end(arguments);
    if (added > 0) used_ = used_ + added < sizeof(text_) ? used_ + added : sizeof(text_) - 1;
  }
  const char* get() const { return text_; }

 private:
  char text_[160] = "";
  size_t used_ = 0;
};

const char* dtype_name(DLDataType dtype) {
  const char* names[] = {"int", "uint", "float", "opaque", "bfloat", "complex", "bool"};
  return dtype.code < 7 ? names[dtype.code] : "unknown";
}

Text describe(DLDataType dtype, const int64_t* shape, int ndim) {
  Text text;
  text.add("%s%d [", dtype_name(dtype), dtype.bits);
  for (int i = 0; i < ndim; i++) {
    if (i > 0) text.add(", ");
    if (shape[i] < 0) text.add("*");
    if (shape[i] >= 0) text.add("%lld", static_cast<long long>(shape[i]));
  }
  text.add("]");
  return text;
}

bool matches(const DLTensor* tensor, DLDataType dtype, std::initializer_list<int64_t> shape) {
  if (!same(tensor->dtype, dtype) || tensor->ndim != static_cast<int>(shape.size())) return false;
  for (int i = 0; i < tensor->ndim; i++) {
    const int64_t expected = shape.begin()[i];
    if (expected >= 0 && tensor->shape[i] != expected) return false;
  }
  return true;
}

bool is_empty(const DLTensor* tensor) {
  for (int i = 0; i < tensor->ndim; i++) {
    if (tensor->shape[i] == 0) return true;
  }
  return false;
}

}  // namespace

void fail(const char* format, ...) {
  va_list arguments;
  va_start(arguments, format);
  vsnprintf(t_error, kErrorBytes, format, arguments);
  va_end(arguments);
  throw Failure();
}

const char* last_error() { return t_error; }

void set_error(const char* sentence) { snprintf(t_error, kErrorBytes, "%s", sentence); }

void set_out_of_memory() {
  set_error("out of memory");
  t_ran_out = true;
}
bool ran_out() { return std::exchange(t_ran_out, false); }

void set_failed_op(const char* name) {
  char sentence[kErrorBytes];
  memcpy(sentence, t_error, kErrorBytes);
  snprintf(t_error, kErrorBytes, "%s: %.*s", name, static_cast<int>(kErrorBytes - 64), sentence);
}

bool same(DLDataType a, DLDataType b) {
  return a.code == b.code && a.bits == b.bits && a.lanes == b.lanes;
}

void expect(const DLTensor* tensor, const char* name, DLDataType dtype,
            std::initializer_list<int64_t> shape) {
  if (tensor == nullptr) fail("%s is missing", name);
  if (tensor->device.device_type != kDevice) {
    fail("%s must be on %s", name, kDevice == kDLCPU ? "the CPU" : "the GPU");
  }
  if (!matches(tensor, dtype, shape)) {
    fail("%s must be %s, but is %s", name,
         describe(dtype, shape.begin(), static_cast<int>(shape.size())).get(),
         describe(tensor->dtype, tensor->shape, tensor->ndim).get());
  }
  if (tensor->data == nullptr && !is_empty(tensor)) fail("%s has no data", name);
}

void expect_contiguous(const DLTensor* tensor, const char* name, int dims) {
  int64_t stride = 1;
  for (int i = tensor->ndim - 1; i >= tensor->ndim - dims; i--) {
    if (tensor->shape[i] != 1 && tensor->strides[i] != stride && !is_empty(tensor)) {
      fail("%s must be contiguous in its last %d dimension(s); call .contiguous()", name, dims);
    }
    stride *= tensor->shape[i];
  }
}

bool wants_shape(DLTensor* out, DLDataType dtype, std::initializer_list<int64_t> shape) {
  if (out->data == nullptr) {
    out->ndim = static_cast<int32_t>(shape.size());
    out->dtype = dtype;
    memcpy(out->shape, shape.begin(), shape.size() * sizeof(int64_t));
    return true;
  }
  expect(out, "the output", dtype, shape);
  expect_contiguous(out, "the output", out->ndim);
  return false;
}

}  // namespace ingot

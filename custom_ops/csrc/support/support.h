// What every op needs: checks that end in a sentence, and the choice of the ISA level.
// Compiled once for each kind of device, on the CPU for the baseline ISA: the code of one level
// must never run at another.
#pragma once

#include <cstdint>
#include <initializer_list>
#include <new>

#include "dltensor.h"

namespace ingot {

inline constexpr DLDataType kUint8{kDLUInt, 8, 1};
inline constexpr DLDataType kInt64{kDLInt, 64, 1};
inline constexpr DLDataType kFloat32{kDLFloat, 32, 1};
inline constexpr DLDataType kFloat16{kDLFloat, 16, 1};
inline constexpr DLDataType kBfloat16{kDLBfloat, 16, 1};

// The device whose tensors the checks take. Values in a GPU's memory they cannot see: there only
// dtypes, shapes and strides are checked.
#ifdef INGOT_CUDA
inline constexpr int32_t kDevice = kDLCUDA;
#else
inline constexpr int32_t kDevice = kDLCPU;
#endif
inline constexpr bool kSeesValues = kDevice == kDLCPU;

// Thrown by fail() and caught by guarded(); the sentence is in ingot_ops_last_error().
struct Failure {};

[[noreturn]] [[gnu::format(printf, 1, 2)]] void fail(const char* format, ...);

bool same(DLDataType a, DLDataType b);

// Throws unless `tensor` is on kDevice and has this dtype and shape; -1 stands for any size.
void expect(const DLTensor* tensor, const char* name, DLDataType dtype,
            std::initializer_list<int64_t> shape);
// Throws unless the last `dims` dimensions are laid out without gaps.
void expect_contiguous(const DLTensor* tensor, const char* name, int dims);

// If the caller asks for the output's shape (its data is null), writes it and returns true: nothing
// is to be computed. Else throws unless `out` is contiguous and has this dtype and shape.
bool wants_shape(DLTensor* out, DLDataType dtype, std::initializer_list<int64_t> shape);

template <typename T>
static inline T* data_of(const DLTensor* tensor) {
  return reinterpret_cast<T*>(static_cast<char*>(tensor->data) + tensor->byte_offset);
}

enum class Level { v2, v3, v4, v4_bf16, v4_amx };
Level current_level();  // throws if INGOT_ISA is wrong
void set_failed_op(const char* name);
void set_error(const char* sentence);
void set_out_of_memory();
bool ran_out();            // whether that was an error of this thread since this was asked last
const char* last_error();  // of this thread

// Runs the op `name`; 0, or 1 with the error set.
template <typename Op>
int32_t guarded(const char* name, const Op& op) try {
  op();
  return 0;
} catch (const Failure&) {
  set_failed_op(name);
  return 1;
} catch (const std::bad_alloc&) {
  set_out_of_memory();
  set_failed_op(name);
  return 1;
}

// Runs the kernel of the current level.
template <typename Kernel, typename... Arguments>
int32_t dispatch(const char* name, Kernel v2, Kernel v3, Kernel v4, Kernel v4_bf16, Kernel v4_amx,
                 Arguments... arguments) {
  const Kernel kernels[] = {v2, v3, v4, v4_bf16, v4_amx};
  return guarded(name, [&] { kernels[static_cast<int>(current_level())](arguments...); });
}

struct OpRow {
  const char* name;
  const char* schema;
  int32_t (*call)(void* const* arguments);  // as ingot_ops_measure_calls has them
};
extern const OpRow kOps[];
extern const int32_t kOpCount;

}  // namespace ingot

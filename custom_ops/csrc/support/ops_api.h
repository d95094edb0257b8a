// What libingot_ops exports beside one `ingot_op_<name>` per op (those: the generated ops_abi.h).
#pragma once

#include <cstdint>

#include "dltensor.h"

#define INGOT_OPS_API __attribute__((visibility("default")))

extern "C" {

// The table of ops, sorted by name: a package stores the schemas that it was compiled against.
INGOT_OPS_API int32_t ingot_ops_count();
INGOT_OPS_API const char* ingot_ops_name(int32_t index);    // null: no such index
INGOT_OPS_API const char* ingot_ops_schema(int32_t index);  // null: no such index

// The ISA level whose kernels run, "x86-64-v2" to "x86-64-v4-amx" (isa.cpp): what the CPU has,
// unless the environment variable INGOT_ISA names a lower one. Null, with the error set, if
// INGOT_ISA is not one of these or the CPU lacks it.
INGOT_OPS_API const char* ingot_ops_level();
// Chooses the level by name for all later calls, as tests do. 0, or 1 with the error set.
INGOT_OPS_API int32_t ingot_ops_set_level(const char* name);

// 1e9 operations a second, two of each multiplication and addition, that `threads` threads reach in
// registers, by the instructions of the level; of "float32", "bfloat16" or "int8" factors. About a
// millisecond. 0, with the error set, for another name or a wrong INGOT_ISA.
INGOT_OPS_API double ingot_ops_measure_peak(const char* factor, int32_t threads);

// Seconds that a call of the op with that index in the table takes: of `count`, one behind the
// other as in a model's step. They go through `calls`, of which there are `copies`, from the
// `first` on, over and over. A call is its arguments' addresses, then its outputs': of a DLTensor,
// an int64_t, double or int32_t (bool), of a string's characters; null: None. Less than 0, with the
// error set, if a call fails or one of the numbers is out of range.
INGOT_OPS_API double ingot_ops_measure_calls(int32_t index, void* const* const* calls,
                                             int64_t copies, int64_t first, int64_t count);

// The sentence of this thread's last failed call.
INGOT_OPS_API const char* ingot_ops_last_error();

}  // extern "C"

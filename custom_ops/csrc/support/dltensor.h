// The part of DLPack's stable ABI that our ops speak: a tensor as a pointer, sizes and strides.
// Field for field the DLTensor of DLPack 1.0 (https://github.com/dmlc/dlpack,
// include/dlpack/dlpack.h), so that a host that has DLPack's own header may use that instead.
#pragma once

#include <cstdint>

extern "C" {

enum : int32_t { kDLCPU = 1, kDLCUDA = 2 };

struct DLDevice {
  int32_t device_type;
  int32_t device_id;
};

enum : uint8_t { kDLInt = 0, kDLUInt = 1, kDLFloat = 2, kDLBfloat = 4, kDLBool = 6 };

struct DLDataType {
  uint8_t code;
  uint8_t bits;
  uint16_t lanes;
};

struct DLTensor {
  void* data;
  DLDevice device;
  int32_t ndim;
  DLDataType dtype;
  int64_t* shape;
  int64_t* strides;  // in elements; ours are never null
  uint64_t byte_offset;
};

}  // extern "C"

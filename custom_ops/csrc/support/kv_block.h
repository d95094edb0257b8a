// The inside of a block of the KV cache: 16 tokens, and for each KV head K as [dim][16] then V as
// [16][dim]. K lies so that 16 scores are computed side by side, V so that a token's row is added
// at once: no sum runs across a register's lanes.
#pragma once

#include "attention_call.h"
#include "half.h"

namespace ingot::INGOT_LEVEL {
namespace {

// One KV head of one block, in place or unpacked to float32.
template <typename T>
struct BlockView {
  const T* k;        // [dim][16]
  const T* v;        // [16][v_stride]
  int64_t v_stride;  // dim rounded up to the lanes of a vector
  int64_t ahead;     // bytes from here to the block that is read a step later
};

inline int64_t padded(int64_t dim) { return (dim + kLanes - 1) / kLanes * kLanes; }

template <typename T>
void write_token(char* head, int64_t dim, int64_t index, const float* k, const float* v) {
  T* k_block = reinterpret_cast<T*>(head);
  T* v_row = k_block + dim * kBlock + index * dim;
  for (int64_t d = 0; d < dim; d++) k_block[d * kBlock + index] = from_float<T>(k[d]);
  for (int64_t d = 0; d < dim; d++) v_row[d] = from_float<T>(v[d]);
}

template <typename T>
const T* values_of(const T* k, int64_t dim) {
  return k + dim * kBlock;
}

// A block whose dim is a multiple of the lanes, where it lies.
template <typename T>
BlockView<T> view_block(const char* head, int64_t dim, int64_t ahead) {
  const T* k = reinterpret_cast<const T*>(head);
  return {k, values_of(k, dim), dim, ahead};
}

// Any block, unpacked into `k` and `v` of 16 times padded(dim) floats each.
template <typename T>
BlockView<float> unpack_block(const char* head, int64_t dim, float* k, float* v) {
  const T* from = reinterpret_cast<const T*>(head);
  const int64_t v_stride = padded(dim);
  to_floats(from, k, dim * kBlock);
  from = values_of(from, dim);
  if (v_stride == dim) {
    to_floats(from, v, dim * kBlock);
    return {k, v, dim, 0};
  }
  for (int64_t t = 0; t < kBlock; t++) {
    to_floats(from + t * dim, v + t * v_stride, dim);
    for (int64_t d = dim; d < v_stride; d++) v[t * v_stride + d] = 0.0f;
  }
  return {k, v, v_stride, 0};
}

}  // namespace
}  // namespace ingot::INGOT_LEVEL

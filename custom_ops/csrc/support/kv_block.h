// The inside of a block of the KV cache: 16 tokens, and for each KV head K as [dim][16] then V as
// [16][dim]. K lies so that 16 scores are computed side by side, V so that a token's row is added
// at once: no sum runs across a register's lanes.
#pragma once

#include "attention_call.h"
#include "half.h"

namespace ingot::INGOT_LEVEL {
namespace {

// One KV head of one block as float32: in place if the cache is, else in the scratch space.
struct BlockView {
  const float* k;    // [dim][16]
  const float* v;    // [16][v_stride]
  int64_t v_stride;  // dim rounded up to the lanes of a vector
};

struct BlockScratch {
  alignas(64) float k[kMaxHeadDim * kBlock];
  alignas(64) float v[kMaxHeadDim * kBlock];
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
BlockView view_block(const char* head, int64_t dim, BlockScratch& scratch) {
  const T* k_block = reinterpret_cast<const T*>(head);
  const T* v_block = k_block + dim * kBlock;
  const int64_t v_stride = padded(dim);
  if constexpr (sizeof(T) == sizeof(float)) {
    if (v_stride == dim) return {k_block, v_block, dim};
  }
  to_floats(k_block, scratch.k, dim * kBlock);
  for (int64_t t = 0; t < kBlock; t++) {
    to_floats(v_block + t * dim, scratch.v + t * v_stride, dim);
    for (int64_t d = dim; d < v_stride; d++) scratch.v[t * v_stride + d] = 0.0f;
  }
  return {scratch.k, scratch.v, v_stride};
}

}  // namespace
}  // namespace ingot::INGOT_LEVEL

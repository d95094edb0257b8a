// The inside of a block of the KV cache: 16 tokens, and for each KV head K as [dim][16] then V as
// [16][dim]. K lies so that 16 scores are computed side by side, V so that a token's row is added
// at once: no sum runs across a register's lanes. Before K and V in int8 codes lie 16 float32
// scales, one a token: a key's is applied to its score, a value's to its softmax weight.
#pragma once

#include <type_traits>

#include "attention_call.h"
#include "half.h"
#include "int8.h"

namespace ingot::INGOT_LEVEL {
namespace {

// One KV head of one block, in place or unpacked to float32.
template <typename T>
struct BlockView {
  const T* k;         // [dim][16]
  const T* v;         // [16][v_stride]
  int64_t v_stride;   // dim rounded up to the lanes of a vector
  const char* ahead;  // where the block begins that is read a step later, or null
  // [16], what scores and weights are multiplied by where k and v are codes; else null.
  const float* k_scales = nullptr;
  const float* v_scales = nullptr;
};

// Where the view's block begins.
template <typename T>
const char* start_of(const BlockView<T>& block) {
  const void* start = block.k;
  if (block.k_scales != nullptr) start = block.k_scales;
  return static_cast<const char*>(start);
}

inline int64_t padded(int64_t dim) { return (dim + kLanes - 1) / kLanes * kLanes; }

template <typename T>
inline constexpr bool kScaled = std::is_same_v<T, int8_t>;

// What part_bytes() counts: K or V of one KV head.
template <typename T>
T* items_of(char* part) {
  return reinterpret_cast<T*>(part + (kScaled<T> ? kScaleBytes : 0));
}

inline float* scales_of(char* part) { return reinterpret_cast<float*>(part); }

template <typename T>
void write_token(char* head, int64_t dim, int64_t index, const float* k, const float* v) {
  char* values = head + part_bytes(sizeof(T), dim);
  T* k_block = items_of<T>(head);
  T* v_row = items_of<T>(values) + index * dim;
  if constexpr (kScaled<T>) {
    T codes[kMaxHeadDim];
    scales_of(head)[index] = quantise(k, dim, codes);
    scales_of(values)[index] = quantise(v, dim, v_row);
    for (int64_t d = 0; d < dim; d++) k_block[d * kBlock + index] = codes[d];
  } else {
    for (int64_t d = 0; d < dim; d++) k_block[d * kBlock + index] = from_float<T>(k[d]);
    for (int64_t d = 0; d < dim; d++) v_row[d] = from_float<T>(v[d]);
  }
}

// A block whose dim is a multiple of the lanes, where it lies.
template <typename T>
BlockView<T> view_block(char* head, int64_t dim, const char* ahead) {
  char* values = head + part_bytes(sizeof(T), dim);
  BlockView<T> view{items_of<T>(head), items_of<T>(values), dim, ahead};
  if constexpr (kScaled<T>) {
    view.k_scales = scales_of(head);
    view.v_scales = scales_of(values);
  }
  return view;
}

template <typename T>
inline void to_floats(const T* from, float* to, int64_t count) {
  int64_t i = 0;
  for (; i + kLanes <= count; i += kLanes) store(to + i, load_floats(from + i));
  for (; i < count; i++) to[i] = to_float(from[i]);
}

// Any block, unpacked into `k` and `v` of 16 times padded(dim) floats each. Codes stay codes: the
// scales come where they come to a block in place, so that both give the same bits.
template <typename T>
BlockView<float> unpack_block(char* head, int64_t dim, float* k, float* v) {
  const BlockView<T> from = view_block<T>(head, dim, nullptr);
  const int64_t v_stride = padded(dim);
  to_floats(from.k, k, dim * kBlock);
  if (v_stride == dim) {
    to_floats(from.v, v, dim * kBlock);
  } else {
    for (int64_t t = 0; t < kBlock; t++) {
      to_floats(from.v + t * dim, v + t * v_stride, dim);
      for (int64_t d = dim; d < v_stride; d++) v[t * v_stride + d] = 0.0f;
    }
  }
  return {k, v, v_stride, nullptr, from.k_scales, from.v_scales};
}

}  // namespace
}  // namespace ingot::INGOT_LEVEL

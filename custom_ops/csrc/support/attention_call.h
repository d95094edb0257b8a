// The arguments of attention ops, checked: from here on every pointer, size and index is good.
#pragma once

#include "support.h"

namespace ingot {

inline constexpr int64_t kBlock = 16;  // tokens
inline constexpr int64_t kMaxHeadDim = 256;

enum class KvType { float32, bfloat16, float16, int8 };
inline constexpr int64_t kScaleBytes = kBlock * sizeof(float);

// Bytes of K, and of V, of one KV head in a block. Items of one byte are codes: the tokens' scales
// lie before them, and both together fill a multiple of 64 bytes.
inline int64_t part_bytes(int64_t item_bytes, int64_t dim) {
  const int64_t bytes = kBlock * dim * item_bytes;
  return item_bytes == 1 ? kScaleBytes + (bytes + 63) / 64 * 64 : bytes;
}

// A float32 tensor [T, heads, dim] whose dim is contiguous.
struct Heads {
  const float* data;
  int64_t token_stride;
  int64_t head_stride;

  const float* at(int64_t token, int64_t head) const {
    return data + token * token_stride + head * head_stride;
  }
};

// Cosines and sines of each token's position, [tokens, pairs]; pairs 0: nothing rotates.
struct Rotary {
  const float *cos, *sin;
  int64_t cos_stride, sin_stride;
  int64_t pairs;

  // to = from, head_dim values, turned by the token's angles. Compiled for the baseline, which has
  // no fused multiply-add, so every level writes the same keys.
  void turn(const float* from, int64_t dim, int64_t token, float* to) const;
  // `from` itself where nothing rotates, else `to`, filled.
  const float* turned(const float* from, int64_t dim, int64_t token, float* to) const {
    if (pairs == 0) return from;
    turn(from, dim, token, to);
    return to;
  }
};

// What every attention over a ragged batch has: q [tokens, query_heads, dim], k and v [tokens,
// kv_heads, dim].
struct RaggedCall {
  Heads q, k, v;
  float* out;
  int64_t tokens, sequences, query_heads, kv_heads, dim;
  const int64_t* query_start;  // [sequences + 1]

  int64_t group() const { return query_heads / kv_heads; }
  int64_t new_tokens(int64_t sequence) const {
    return query_start[sequence + 1] - query_start[sequence];
  }
};

struct AttentionCall : RaggedCall {
  Rotary rotary;
  char* cache;
  int64_t cache_stride;  // bytes from one block to the next
  int64_t head_bytes;    // of one KV head in a block
  KvType kv_type;
  const int64_t* slot_mapping;  // [tokens]
  const int64_t* seq_lens;      // [sequences]
  const int64_t* block_table;   // [sequences, pages]
  int64_t pages;
  float scale;
  int64_t window;  // INT64_MAX: none
  int64_t n_sink;  // first positions of a sequence, seen beside the window
  float softcap;   // 0: none

  // First position that the token at `position` sees.
  int64_t first_seen(int64_t position) const {
    return position >= window ? position - window + 1 : 0;
  }
};

struct AttentionArguments {
  const DLTensor *q, *k, *v;
  DLTensor* kv_cache;
  const DLTensor *slot_mapping, *query_start, *seq_lens, *block_table;
  const DLTensor *rotary_cos, *rotary_sin;  // or null
  double scale;
  const int64_t* window;
  const double* softcap;
  int64_t n_sink;
  const char* kv_dtype;
};

// These throw with a sentence if anything does not fit. The output is not part of it.
RaggedCall check_ragged(const DLTensor* q, const DLTensor* k, const DLTensor* v,
                        const DLTensor* query_start);
AttentionCall check_attention(const AttentionArguments& arguments);

}  // namespace ingot

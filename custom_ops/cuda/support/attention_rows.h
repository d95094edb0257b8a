// Which rows, pages and positions a block of an attention kernel works on.
//
// A row is a pair of a token and a query head. The rows of one sequence that share a KV head are
// numbered token by token, so that one tile of rows reads K and V once for the whole group.
#pragma once

#include <climits>

#include "attention_call.h"
#include "device.h"

namespace ingot::cuda {

constexpr int kPageTokens = static_cast<int>(kBlock);
constexpr float kInfinity = __builtin_inff();
constexpr float kLog2E = 1.44269504f;

// An attention call on the device. Where it is `causal`, a token sees its position and those before
// it; else all of its sequence, and of AttentionCall only what a RaggedCall has counts.
struct DeviceCall : AttentionCall {
  bool causal;
  int window_tokens, sink_tokens;  // as AttentionCall's, at most INT_MAX
  int group_size;

  DeviceCall(const AttentionCall& call, bool causal)
      : AttentionCall(call),
        causal(causal),
        window_tokens(static_cast<int>(call.window < INT_MAX ? call.window : INT_MAX)),
        sink_tokens(static_cast<int>(call.n_sink < INT_MAX ? call.n_sink : INT_MAX)),
        group_size(static_cast<int>(call.group())) {}

  // The first position in the window of the token at `position`.
  __device__ int window_begin(int position) const {
    return position >= window_tokens ? position - window_tokens + 1 : 0;
  }
  // What q is multiplied by: scores are then powers of 2, or what the softcap takes.
  __device__ float query_factor() const {
    return softcap == 0.0f ? scale * kLog2E : scale / softcap;
  }
};

// cap(score) as a power of 2; `score` has the query's factor in it.
__device__ __forceinline__ float capped(float score, float softcap) {
  // tanh(x) = 1 - 2 / (e^2x + 1)
  const float tanh = 1.0f - quotient_fast(2.0f, exp2_fast(2.0f * kLog2E * score) + 1.0f);
  return softcap * kLog2E * tanh;
}

// Element d of x [dim] turned by the token's angles, with Rotary::turn's very operations.
__device__ inline float turned(const Rotary& rotary, const float* x, int d, int64_t token) {
  const int pairs = static_cast<int>(rotary.pairs);
  if (d >= 2 * pairs) return x[d];
  const int pair = d < pairs ? d : d - pairs;
  const float cos = rotary.cos[token * rotary.cos_stride + pair];
  const float sin = rotary.sin[token * rotary.sin_stride + pair];
  if (d < pairs) return sum(product(x[d], cos), -product(x[d + pairs], sin));
  return sum(product(x[d], cos), product(x[pair], sin));
}

// One of Heads' vectors, as Heads::at.
__device__ inline const float* vector_of(const Heads& heads, int64_t token, int64_t head) {
  return heads.data + token * heads.token_stride + head * heads.head_stride;
}

// Tiles of `tile_rows` rows are numbered over all sequences without a sum over their lengths: those
// of sequence b begin at floor(query_start[b] * group / tile_rows) + b, which leaves each at least
// as many numbers as it has tiles. A grid over them has tile_count() blocks, some without rows.
__host__ __device__ inline int64_t first_tile(int64_t start, int64_t group, int tile_rows,
                                              int64_t sequence) {
  return start * group / tile_rows + sequence;
}
inline int64_t tile_count(const RaggedCall& call, int tile_rows) {
  return first_tile(call.tokens, call.group(), tile_rows, call.sequences);
}

// The last sequence whose first tile is not beyond `tile`. With tiles of one row and group 1,
// token t + sequence b: see sequence_of_token.
__device__ inline int64_t sequence_of_tile(const DeviceCall& call, int64_t tile, int tile_rows) {
  int64_t low = 0, high = call.sequences;
  while (high - low > 1) {
    const int64_t middle = (low + high) / 2;
    const int64_t first = first_tile(call.query_start[middle], call.group_size, tile_rows, middle);
    (first <= tile ? low : high) = middle;
  }
  return low;
}
// The sequence that owns the token, or -1: padding.
__device__ inline int64_t sequence_of_token(const DeviceCall& call, int64_t token) {
  int64_t low = 0, high = call.sequences;
  if (high == 0 || token >= call.query_start[high]) return -1;
  while (high - low > 1) {
    const int64_t middle = (low + high) / 2;
    (call.query_start[middle] <= token ? low : high) = middle;
  }
  return low;
}

struct Sequence {
  int64_t first_token;
  int rows;         // of each KV head; 0 where the sequence is padding
  int last_of_all;  // the last position that its last token sees
  int first_last;   // and that its first token sees

  __device__ Sequence(const DeviceCall& call, int64_t b) : first_token(call.query_start[b]) {
    int tokens = static_cast<int>(call.query_start[b + 1] - first_token), length = tokens;
    if (call.causal) length = static_cast<int>(call.seq_lens[b]);
    if (length == 0) tokens = 0;
    rows = tokens * call.group_size;
    last_of_all = length - 1;
    first_last = call.causal ? length - tokens : last_of_all;
  }
};

// Up to `most` rows of a sequence, from `first` on.
struct RowTile {
  int64_t first_token;
  int first, rows, group, first_last, last_of_all;

  RowTile() = default;
  __device__ RowTile(const DeviceCall& call, const Sequence& sequence, int first, int most)
      : first_token(sequence.first_token),
        first(first),
        rows(min(sequence.rows - first, most)),
        group(call.group_size),
        first_last(sequence.first_last),
        last_of_all(sequence.last_of_all) {}

  __device__ int64_t token(int row) const { return first_token + (first + row) / group; }
  // The query head, of those that share a KV head.
  __device__ int head(int row) const { return (first + row) % group; }
  // The last position that a row sees. Rows beyond the tile see what its last row does.
  __device__ int last(int row) const {
    return min(first_last + (first + min(row, rows - 1)) / group, last_of_all);
  }
  __device__ float* out(const DeviceCall& call, int row, int64_t kv_head) const {
    return call.out + (token(row) * call.query_heads + kv_head * group + head(row)) * call.dim;
  }
};

// Which positions of its sequence a row sees, or any row of a tile, or all of them.
struct Mask {
  int last, begin, sinks;

  __device__ bool sees(int position) const {
    return position <= last && (position >= begin || position < sinks);
  }
  __device__ bool sees_page(int page) const {  // all of it
    const int from = page * kPageTokens, to = from + kPageTokens;
    return to <= last + 1 && (from >= begin || to <= sinks);
  }
};

__device__ inline Mask mask_of(const DeviceCall& call, const RowTile& tile, int row) {
  const int last = tile.last(row);
  if (!call.causal) return {last, 0, 0};
  return {last, call.window_begin(last), call.sink_tokens};
}

// The pages that any row of a tile sees, in order: those of the sinks, then those of the window.
struct SeenPages {
  int sink_pages, window_page, count;
  Mask any, all;  // what some row sees, and what each does

  SeenPages() = default;
  __device__ SeenPages(const DeviceCall& call, const RowTile& tile) {
    const Mask first = mask_of(call, tile, 0), last = mask_of(call, tile, tile.rows - 1);
    any = {last.last, first.begin, min(last.sinks, last.last + 1)};
    all = {first.last, last.begin, last.sinks};
    sink_pages = (any.sinks + kPageTokens - 1) / kPageTokens;
    window_page = max(any.begin / kPageTokens, sink_pages);
    count = sink_pages + max(any.last / kPageTokens + 1 - window_page, 0);
  }

  // The page at place i, of the sequence's.
  __device__ int page(int i) const { return i < sink_pages ? i : i - sink_pages + window_page; }
};

}  // namespace ingot::cuda

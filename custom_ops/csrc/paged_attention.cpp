// paged_attention: writes K and V into the cache, then attends; see custom_ops/paged_attention.py.
#include "attention_tile.h"
#include "ops.h"

namespace ingot::INGOT_LEVEL {
namespace {

void set_rows(Tile& tile, int64_t* positions, const AttentionCall& call, int64_t sequence,
              int64_t kv_head, int64_t first_row) {
  const int64_t group = call.group();
  const int64_t count = call.new_tokens(sequence);
  const int64_t left = count * group - first_row;
  tile.rows = static_cast<int>(left < kTileRows ? left : kTileRows);
  for (int r = 0; r < tile.rows; r++) {
    const int64_t index = (first_row + r) / group;
    const int64_t token = call.query_start[sequence] + index;
    const int64_t head = kv_head * group + (first_row + r) % group;
    float rotated[kMaxHeadDim];
    const float* q = call.rotary.turned(call.q.at(token, head), call.dim, token, rotated);
    begin_row(tile, r, q, call.out + (token * call.query_heads + head) * call.dim, call.dim);
    positions[r] = call.seq_lens[sequence] - count + index;
  }
}

template <typename T>
void attend(const AttentionCall& call, int64_t sequence, int64_t kv_head, int64_t first_row) {
  Tile tile;
  int64_t positions[kTileRows];
  BlockScratch scratch[kStepBlocks];
  set_rows(tile, positions, call, sequence, kv_head, first_row);
  const Scores how = {call.dim, call.scale, call.softcap};
  const int64_t* table = call.block_table + sequence * call.pages;
  const auto view = [&](int64_t page, int place) {
    const char* head = call.cache + table[page] * call.cache_stride + kv_head * call.head_bytes;
    return view_block<T>(head, call.dim, scratch[place]);
  };
  if (call.n_sink > 0) {
    for (int r = 0; r < tile.rows; r++) {
      const int64_t window = call.first_seen(positions[r]);
      tile.first[r] = 0;
      tile.last[r] = (window < call.n_sink ? window : call.n_sink) - 1;
    }
    walk(tile, how, view);
  }
  for (int r = 0; r < tile.rows; r++) {
    tile.first[r] = call.first_seen(positions[r]);
    tile.last[r] = positions[r];
  }
  walk(tile, how, view);
  finish(tile, call.dim);
}

// Tokens beyond the last sequence are padding, and so are those of a sequence of length 0.
void clear_padding(const AttentionCall& call) {
  const int64_t row = call.query_heads * call.dim;
  for (int64_t b = 0; b < call.sequences; b++) {
    if (call.seq_lens[b] != 0) continue;
    memset(call.out + call.query_start[b] * row, 0, call.new_tokens(b) * row * sizeof(float));
  }
  const int64_t used = call.query_start[call.sequences];
  memset(call.out + used * row, 0, (call.tokens - used) * row * sizeof(float));
}

template <typename T>
void write_slot(const AttentionCall& call, int64_t token, int64_t kv_head) {
  const int64_t slot = call.slot_mapping[token];
  if (slot < 0) return;
  float rotated[kMaxHeadDim];
  const float* k = call.rotary.turned(call.k.at(token, kv_head), call.dim, token, rotated);
  char* head = call.cache + slot / kBlock * call.cache_stride + kv_head * call.head_bytes;
  write_token<T>(head, call.dim, slot % kBlock, k, call.v.at(token, kv_head));
}

template <typename T>
void run(const AttentionCall& call) {
  clear_padding(call);
#pragma omp parallel
  {
#pragma omp for collapse(2) schedule(static)  // ends in a barrier: all K and V are written
    for (int64_t t = 0; t < call.tokens; t++) {
      for (int64_t h = 0; h < call.kv_heads; h++) {
        write_slot<T>(call, t, h);
      }
    }
    for (int64_t b = 0; b < call.sequences; b++) {
      const int64_t rows = call.seq_lens[b] > 0 ? call.new_tokens(b) * call.group() : 0;
#pragma omp for collapse(2) schedule(dynamic, 1) nowait
      for (int64_t h = 0; h < call.kv_heads; h++) {
        for (int64_t row = 0; row < rows; row += kTileRows) attend<T>(call, b, h, row);
      }
    }
  }
}

}  // namespace

void paged_attention(const DLTensor* q, const DLTensor* k, const DLTensor* v, DLTensor* kv_cache,
                     const DLTensor* slot_mapping, const DLTensor* query_start,
                     const DLTensor* seq_lens, const DLTensor* block_table,
                     const DLTensor* rotary_cos, const DLTensor* rotary_sin, double scale,
                     const int64_t* window, const double* softcap, int64_t n_sink,
                     const char* kv_dtype, DLTensor* out0) {
  AttentionCall call =
      check_attention({q, k, v, kv_cache, slot_mapping, query_start, seq_lens, block_table,
                       rotary_cos, rotary_sin, scale, window, softcap, n_sink, kv_dtype});
  if (wants_shape(out0, kFloat32, {call.tokens, call.query_heads, call.dim})) return;
  call.out = data_of<float>(out0);
  switch (call.kv_type) {
    case KvType::float32:
      return run<float>(call);
    case KvType::bfloat16:
      return run<Bfloat>(call);
    case KvType::float16:
      return run<Half>(call);
  }
}

}  // namespace ingot::INGOT_LEVEL

// The rows of paged_attention: for each KV head of a sequence the (token, query head) pairs that
// read it, by token and then by head.
#pragma once

#include "attention_tile.h"
#include "sizes.h"

namespace ingot::INGOT_LEVEL {
namespace {

inline int64_t segments(int64_t tokens) { return ceil_div(tokens, kSegmentTokens); }

inline int64_t rows_of(const AttentionCall& call, int64_t sequence) {
  return call.seq_lens[sequence] > 0 ? call.new_tokens(sequence) * call.group() : 0;
}

// The rows of a tile: of one KV head of one sequence, and where their tokens are.
template <int kCapacity>
class Rows {
 public:
  // Takes up to kCapacity rows, from `first_row` on; not their queries.
  void begin(const AttentionCall& call, int64_t sequence, int64_t kv_head, int64_t first_row) {
    const int64_t group = call.group(), left = rows_of(call, sequence) - first_row;
    tile.rows = static_cast<int>(left < kCapacity ? left : kCapacity);
    const int64_t past = call.seq_lens[sequence] - call.new_tokens(sequence);
    first_token_ = call.query_start[sequence] - past;
    int64_t index = first_row / group, in_group = first_row % group;
    for (int r = 0; r < tile.rows; r++) {
      positions_[r] = past + index;
      heads_[r] = kv_head * group + in_group;
      begin_row(tile, r, call.out + (token(r) * call.query_heads + heads_[r]) * call.dim, call.dim);
      if (++in_group < group) continue;
      in_group = 0;
      index++;
    }
  }

  void take_queries(const AttentionCall& call, const Scores& how) {
    for (int r = 0; r < tile.rows; r++) {
      float rotated[kMaxHeadDim];
      take_query(tile, r, call.rotary.turned(query(call, r), call.dim, token(r), rotated), how);
    }
  }

  // As the call has it.
  const float* query(const AttentionCall& call, int r) const {
    return call.q.at(token(r), heads_[r]);
  }

  int64_t last_position() const { return positions_[tile.rows - 1]; }
  int64_t first_segment(const AttentionCall& call) const {
    return call.n_sink > 0 ? 0 : call.first_seen(positions_[0]) / kSegmentTokens;
  }

  // The next walk is over the sinks before each row's window.
  void see_sinks(const AttentionCall& call) {
    for (int r = 0; r < tile.rows; r++) {
      const int64_t window = call.first_seen(positions_[r]);
      tile.first[r] = 0;
      tile.last[r] = (window < call.n_sink ? window : call.n_sink) - 1;
    }
  }

  // The next walk is over each row's window.
  void see_window(const AttentionCall& call) {
    for (int r = 0; r < tile.rows; r++) {
      tile.first[r] = call.first_seen(positions_[r]);
      tile.last[r] = positions_[r];
    }
  }

  TileOf<kCapacity> tile;

 private:
  int64_t token(int r) const { return first_token_ + positions_[r]; }

  int64_t first_token_;  // what would have position 0
  int64_t positions_[kCapacity];
  int64_t heads_[kCapacity];
};

}  // namespace
}  // namespace ingot::INGOT_LEVEL

// Attention in which every token of a sequence sees every other, over a ragged batch; see
// custom_ops/attention.py. By tiles (bidirectional_amx.h) where the level has them, and else in
// float32 arithmetic. Either way the keys and values of a head are laid out once, in memory that is
// kept, and then read by all the rows of that head.
#pragma once

#include "bidirectional_amx.h"
#include "shares.h"

namespace ingot::INGOT_LEVEL {
namespace {

// The keys and values of one KV head of one sequence, as a cache has them: blocks of 16 tokens.
class Blocks {
 public:
  Blocks(const BidirectionalCall& call, int64_t sequence, int64_t kv_head)
      : dim_(call.dim),
        v_stride_(padded(call.dim)),
        copied_(v_stride_ != call.dim),
        first_(call.query_start[sequence]),
        v_(call.v),
        kv_head_(kv_head) {
    const int64_t tokens = call.new_tokens(sequence);
    const int64_t blocks = (tokens + kBlock - 1) / kBlock;
    data_ = kept<Line>(blocks * block_floats() / kBlock)->values;
    for (int64_t t = 0; t < tokens; t += kBlock) {
      const int64_t left = tokens - t < kBlock ? tokens - t : kBlock;
      float* block = data_ + t / kBlock * block_floats();
      transpose_keys(call.k.at(first_ + t, kv_head), call.k.token_stride, left, dim_, block);
      if (copied_) copy_values(t, left, block + dim_ * kBlock);
    }
  }

  BlockView<float> view(int64_t index) const {
    const float* block = data_ + index * block_floats();
    if (copied_) return {block, block + dim_ * kBlock, v_stride_, 0};
    return {block, v_.at(first_ + index * kBlock, kv_head_), v_.token_stride, 0};
  }

 private:
  struct Line {
    alignas(64) float values[kBlock];
  };

  int64_t block_floats() const { return kBlock * (dim_ + (copied_ ? v_stride_ : 0)); }

  // block [dim][16] = k^T of up to 16 tokens, which begin `stride` floats apart; zeros beyond them.
  static void transpose_keys(const float* k, int64_t stride, int64_t tokens, int64_t dim,
                             float* block) {
    for (int64_t t = 0; t < kBlock; t += kLanes) {
      int64_t d = 0;
      for (; d + kLanes <= dim; d += kLanes) {
        Vec rows[kLanes];
        for (int i = 0; i < kLanes; i++) {
          rows[i] = t + i < tokens ? load<Vec>(k + (t + i) * stride + d) : Vec{};
        }
        transpose(rows);
        for (int i = 0; i < kLanes; i++) store(block + (d + i) * kBlock + t, rows[i]);
      }
      for (; d < dim; d++) {
        for (int i = 0; i < kLanes; i++) {
          block[d * kBlock + t + i] = t + i < tokens ? k[(t + i) * stride + d] : 0.0f;
        }
      }
    }
  }

  void copy_values(int64_t first, int64_t tokens, float* to) const {
    memset(to, 0, kBlock * v_stride_ * sizeof(float));
    for (int64_t t = 0; t < tokens; t++) {
      memcpy(to + t * v_stride_, v_.at(first_ + first + t, kv_head_), dim_ * sizeof(float));
    }
  }

  int64_t dim_, v_stride_;
  bool copied_;  // values too
  int64_t first_;
  Heads v_;
  int64_t kv_head_;
  float* data_;
};

// The rows of a query head in float32 arithmetic.
void attend(const BidirectionalCall& call, int64_t sequence, int64_t head, const Blocks& blocks) {
  const int64_t count = call.new_tokens(sequence), start = call.query_start[sequence];
  const Scores how = {call.dim, call.scale, 0.0f};
  Tile tile;
  alignas(64) float weights[kTileRows][kStepTokens], space[Tile::kSpaceRows][kRowFloats];
  tile.weights = weights;
  tile.take_space(space);
  tile.scaled = false;
  for (int64_t first = 0; first < count; first += kTileRows) {
    tile.rows = static_cast<int>(count - first < kTileRows ? count - first : kTileRows);
    for (int r = 0; r < tile.rows; r++) {
      const int64_t token = start + first + r;
      begin_row(tile, r, call.out + (token * call.query_heads + head) * call.dim, call.dim);
      take_query(tile, r, call.q.at(token, head), how);
      tile.first[r] = 0;
      tile.last[r] = count - 1;
    }
    begin_segment(tile, call.dim);
    walk<ManyRows, float>(tile, how, 0, count,
                          [&](int64_t index, int) { return blocks.view(index); });
    end_segment(tile);
    add_segment(tile, call.dim);
    finish(tile, call.dim);
  }
}

void attend_in_floats(const BidirectionalCall& call, int64_t sequence, int64_t kv_head) {
  const Blocks blocks(call, sequence, kv_head);
  for (int64_t g = 0; g < call.group(); g++)
    attend(call, sequence, kv_head * call.group() + g, blocks);
}

// The KV heads of all sequences have numbers. `next` is the one that this thread likely takes next,
// or behind the last.
template <int kParts>
void attend_head(const BidirectionalCall& call, int64_t number, int64_t next) {
  const int64_t sequence = number / call.kv_heads, kv_head = number % call.kv_heads;
  if constexpr (kHasAmx) {
    const NextHead ahead(call, next / call.kv_heads, next % call.kv_heads);
    if (attend_by_tiles<kParts>(call, sequence, kv_head, ahead)) return;
  }
  attend_in_floats(call, sequence, kv_head);
}

// kParts of q, k, v and the weights, where tiles multiply them: kExactParts, or 1.
template <int kParts>
void attend_both_ways(const DLTensor* q, const DLTensor* k, const DLTensor* v,
                      const DLTensor* query_start, double scale, DLTensor* out0) {
  BidirectionalCall call{check_ragged(q, k, v, query_start), static_cast<float>(scale)};
  if (wants_shape(out0, kFloat32, {call.tokens, call.query_heads, call.dim})) return;
  call.out = data_of<float>(out0);
  const int64_t used = call.query_start[call.sequences], row = call.query_heads * call.dim;
  memset(call.out + used * row, 0, (call.tokens - used) * row * sizeof(float));
  const int64_t heads = call.sequences * call.kv_heads, shares = omp_get_max_threads();
  int64_t* taken = none_taken(shares);
#pragma omp parallel
  take_stretches(taken, shares, heads, [&](int64_t head, int64_t end) {
    attend_head<kParts>(call, head, head + 1 < end ? head + 1 : heads);
  });
}

}  // namespace
}  // namespace ingot::INGOT_LEVEL

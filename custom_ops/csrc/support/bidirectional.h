// Attention in which every token of a sequence sees every other, over a ragged batch; see
// custom_ops/attention.py. By tiles (attention_amx.h) where the level has them, and else in float32
// arithmetic. Either way the keys and values of a head are laid out once, in memory that is kept,
// and then read by all the rows of that head.
#pragma once

#include <vector>

#include "attention_amx.h"
#include "kept.h"

namespace ingot::INGOT_LEVEL {
namespace {

struct BidirectionalCall : RaggedCall {
  float scale;
};

// The calling thread's, at least `count` of them. What was there may be lost.
template <typename T>
T* kept(int64_t count) {
  static thread_local Kept<T> space;
  return grown(space, count);
}

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

// The same as tiles, step by step.
template <int kParts>
class SequenceTiles {
 public:
  SequenceTiles(const BidirectionalCall& call, int64_t sequence, int64_t kv_head)
      : dim_(call.dim), first_(call.query_start[sequence]), count_(call.new_tokens(sequence)) {
    const int64_t steps = (count_ + kStepTokens - 1) / kStepTokens;
    tiles_ = kept<Parts>(steps * step_tiles())->tiles;
    for (int64_t t = 0; t < count_; t += kBlock) lay_out_keys(call.k, kv_head, t);
    for (int64_t t = 0; t < count_; t += kDepth) lay_out_values(call.v, kv_head, t);
  }

  bool finite() const { return all_finite(largest_); }

  // Of the tokens from `position`, a multiple of kStepTokens.
  StepTiles<kParts> step(int64_t position) const {
    Words(*keys)[kParts] = tiles_at(position);
    return {keys, keys + key_tiles(dim_)};
  }

 private:
  struct Parts {
    Words tiles[kParts];
  };

  int64_t step_tiles() const { return key_tiles(dim_) + value_tiles(dim_); }

  Words (*tiles_at(int64_t position) const)[kParts] {
    return reinterpret_cast<Words(*)[kParts]>(tiles_) + position / kStepTokens * step_tiles();
  }

  // The row of a token, with zeros behind it up to whole words; zeros for one beyond the last.
  const float* padded_row(const Heads& from, int64_t head, int64_t token, float* space) const {
    if (token < count_ && dim_ % kDepth == 0) return from.at(first_ + token, head);
    memset(space, 0, depths(dim_) * kDepth * sizeof(float));
    if (token < count_) memcpy(space, from.at(first_ + token, head), dim_ * sizeof(float));
    return space;
  }

  // A word of a key is one of its rows of 16 words: transposed, the 16 keys of a block are tiles.
  void lay_out_keys(const Heads& k, int64_t head, int64_t first) {
    alignas(64) float space[kMaxHeadDim];
    alignas(64) Vec rows[kMaxHeadDim / kDepth][kParts][kAmxRows];
    for (int t = 0; t < kBlock; t++) {
      const float* key = padded_row(k, head, first + t, space);
      for (int64_t c = 0; c < depths(dim_); c++) {
        const float* from = key + c * kDepth;
        const auto [low, high] = even_and_odd(load<Vec>(from), load<Vec>(from + kLanes));
        split<kParts>(low, high, [&](int p, VecWord words) {
          if (p == 0) raise_halves(largest_, words);
          rows[c][p][t] = bit_cast<Vec>(words);
        });
      }
    }
    Words(*to)[kParts] = step(first).keys + first % kStepTokens / kBlock;
    for (int64_t c = 0; c < depths(dim_); c++) {
      for (int p = 0; p < kParts; p++) {
        transpose(rows[c][p]);
        for (int i = 0; i < kAmxRows; i++) store(to[c * kStepBlocks][p].rows[i], rows[c][p][i]);
      }
    }
  }

  void lay_out_values(const Heads& v, int64_t head, int64_t first) {
    alignas(64) float low_space[kMaxHeadDim], high_space[kMaxHeadDim];
    Words(*to)[kParts] = step(first).values + first % kStepTokens / kDepth * columns_of(dim_);
    for (int i = 0; i < kAmxRows; i++) {
      const float* low = padded_row(v, head, first + i, low_space);
      const float* high = padded_row(v, head, first + i + kAmxRows, high_space);
      for (int64_t c = 0; c < columns_of(dim_); c++) {
        split<kParts>(load<Vec>(low + c * kLanes), load<Vec>(high + c * kLanes),
                      [&](int p, VecWord words) {
                        if (p == 0) raise_halves(largest_, words);
                        store(to[c][p].rows[i], words);
                      });
      }
    }
  }

  int64_t dim_, first_, count_;
  Words* tiles_;
  Halves largest_ = {};
};

// Calls sum(tile) for each tile of the rows of a query head, begun, and writes what that adds up.
template <typename Sum>
void attend(const BidirectionalCall& call, int64_t sequence, int64_t head, Sum sum) {
  const int64_t count = call.new_tokens(sequence), start = call.query_start[sequence];
  const Scores how = {call.dim, call.scale, 0.0f};
  Tile tile;
  tile.scaled = false;
  for (int64_t first = 0; first < count; first += kTileRows) {
    tile.rows = static_cast<int>(count - first < kTileRows ? count - first : kTileRows);
    for (int r = 0; r < tile.rows; r++) {
      const int64_t token = start + first + r;
      begin_row(tile, r, call.q.at(token, head),
                call.out + (token * call.query_heads + head) * call.dim, how);
      tile.first[r] = 0;
      tile.last[r] = count - 1;
    }
    begin_segment(tile, call.dim);
    sum(tile, how, count);
    end_segment(tile);
    add_segment(tile, call.dim);
    finish(tile, call.dim);
  }
}

// Calls body(head) for each query head of a KV head.
template <typename Body>
void for_group(const BidirectionalCall& call, int64_t kv_head, Body body) {
  for (int64_t g = 0; g < call.group(); g++) body(kv_head * call.group() + g);
}

// False if that is not for tiles: a product of tiles is NaN where infinity meets what a part of 0
// stands for.
template <int kParts>
bool attend_by_tiles(const BidirectionalCall& call, int64_t sequence, int64_t kv_head) {
  const SequenceTiles<kParts> tiles(call, sequence, kv_head);
  if (!tiles.finite()) return false;
  RowTiles<kParts> own;
  for_group(call, kv_head, [&](int64_t head) {
    attend(call, sequence, head, [&](Tile& tile, const Scores& how, int64_t count) {
      lay_out_queries(tile, call.dim, own);
      walk_with_tiles(tile, 0, count, [&](int64_t position) {
        const auto [begin, end] = see(tile, position);
        const int blocks = (end - begin + kBlock - 1) / kBlock;
        const StepTiles<kParts> step = tiles.step(position);
        multiply_queries(tile, 0, 0, blocks, how.dim, own, step);
        add_tiles(tile, 0, blocks, how, own, step);
      });
    });
  });
  return true;
}

void attend_in_floats(const BidirectionalCall& call, int64_t sequence, int64_t kv_head) {
  const Blocks blocks(call, sequence, kv_head);
  for_group(call, kv_head, [&](int64_t head) {
    attend(call, sequence, head, [&](Tile& tile, const Scores& how, int64_t count) {
      walk<ManyRows, float>(tile, how, 0, count,
                            [&](int64_t index, int) { return blocks.view(index); });
    });
  });
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
#pragma omp parallel for collapse(2) schedule(dynamic, 1)
  for (int64_t b = 0; b < call.sequences; b++) {
    for (int64_t h = 0; h < call.kv_heads; h++) {
      if constexpr (kHasAmx) {
        if (attend_by_tiles<kParts>(call, b, h)) continue;
      }
      attend_in_floats(call, b, h);
    }
  }
}

}  // namespace
}  // namespace ingot::INGOT_LEVEL

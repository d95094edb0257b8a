// attention: bidirectional, over a ragged batch; see custom_ops/attention.py.
//
// A head's keys are laid out once in blocks of 16 tokens, as paged_attention's cache has them, and
// then read by all the tiles of that head; so are its values, if they are no whole vectors.
#include <new>

#include "attention_tile.h"
#include "ops.h"

namespace ingot::INGOT_LEVEL {
namespace {

struct Call : RaggedCall {
  float scale;
};

// block [dim][16] = k^T of up to 16 tokens, which begin `stride` floats apart; zeros beyond them.
void transpose_keys(const float* k, int64_t stride, int64_t tokens, int64_t dim, float* block) {
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

// One KV head of one sequence.
class Blocks {
 public:
  Blocks(const Call& call, int64_t sequence, int64_t kv_head)
      : dim_(call.dim),
        v_stride_(padded(call.dim)),
        copied_(v_stride_ != call.dim),
        first_(call.query_start[sequence]),
        v_(call.v),
        kv_head_(kv_head) {
    const int64_t tokens = call.new_tokens(sequence);
    const int64_t floats = (tokens + kBlock - 1) / kBlock * block_floats();
    data_ = static_cast<float*>(operator new(floats * sizeof(float), std::align_val_t{64}));
    for (int64_t t = 0; t < tokens; t += kBlock) {
      const int64_t left = tokens - t < kBlock ? tokens - t : kBlock;
      float* block = data_ + t / kBlock * block_floats();
      transpose_keys(call.k.at(first_ + t, kv_head), call.k.token_stride, left, dim_, block);
      if (copied_) copy_values(t, left, block + dim_ * kBlock);
    }
  }
  ~Blocks() { operator delete(data_, std::align_val_t{64}); }
  Blocks(const Blocks&) = delete;
  Blocks& operator=(const Blocks&) = delete;

  BlockView<float> view(int64_t index) const {
    const float* block = data_ + index * block_floats();
    if (copied_) return {block, block + dim_ * kBlock, v_stride_, 0};
    return {block, v_.at(first_ + index * kBlock, kv_head_), v_.token_stride, 0};
  }

 private:
  int64_t block_floats() const { return kBlock * (dim_ + (copied_ ? v_stride_ : 0)); }

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

void attend(const Call& call, const Blocks& blocks, int64_t sequence, int64_t head) {
  const int64_t count = call.new_tokens(sequence), start = call.query_start[sequence];
  const Scores how = {call.dim, call.scale, 0.0f};
  Tile tile;
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
    walk<ManyRows, float>(tile, how, 0, count,
                          [&](int64_t index, int) { return blocks.view(index); });
    end_segment(tile);
    add_segment(tile, call.dim);
    finish(tile, call.dim);
  }
}

void run(const Call& call) {
  const int64_t used = call.query_start[call.sequences], row = call.query_heads * call.dim;
  memset(call.out + used * row, 0, (call.tokens - used) * row * sizeof(float));
#pragma omp parallel for collapse(2) schedule(dynamic, 1)
  for (int64_t b = 0; b < call.sequences; b++) {
    for (int64_t h = 0; h < call.kv_heads; h++) {
      const Blocks blocks(call, b, h);
      for (int64_t g = 0; g < call.group(); g++) attend(call, blocks, b, h * call.group() + g);
    }
  }
}

}  // namespace

void attention(const DLTensor* q, const DLTensor* k, const DLTensor* v, const DLTensor* query_start,
               double scale, DLTensor* out0) {
  Call call{check_ragged(q, k, v, query_start), static_cast<float>(scale)};
  if (wants_shape(out0, kFloat32, {call.tokens, call.query_heads, call.dim})) return;
  call.out = data_of<float>(out0);
  run(call);
}

}  // namespace ingot::INGOT_LEVEL

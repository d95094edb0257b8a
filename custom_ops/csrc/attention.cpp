// attention: bidirectional, over a ragged batch; see custom_ops/attention.py.
//
// A head's keys and values are laid out once in blocks of 16 tokens, as paged_attention's cache has
// them, and then read by all the tiles of that head.
#include <new>

#include "attention_tile.h"
#include "ops.h"

namespace ingot::INGOT_LEVEL {
namespace {

struct Call : RaggedCall {
  float scale;
};

// One KV head of one sequence as float32 blocks: K [dim][16], then V [16][v_stride].
class Blocks {
 public:
  Blocks(const Call& call, int64_t sequence, int64_t kv_head)
      : dim_(call.dim),
        v_stride_(padded(call.dim)),
        count_((call.new_tokens(sequence) + kBlock - 1) / kBlock),
        data_(static_cast<float*>(operator new(count_ * block_floats() * sizeof(float),
                                               std::align_val_t{64}))) {
    memset(data_, 0, count_ * block_floats() * sizeof(float));
    const int64_t first = call.query_start[sequence];
    for (int64_t t = 0; t < call.new_tokens(sequence); t++) {
      const float *k = call.k.at(first + t, kv_head), *v = call.v.at(first + t, kv_head);
      float* block = data_ + t / kBlock * block_floats();
      for (int64_t d = 0; d < dim_; d++) block[d * kBlock + t % kBlock] = k[d];
      memcpy(block + dim_ * kBlock + t % kBlock * v_stride_, v, dim_ * sizeof(float));
    }
  }
  ~Blocks() { operator delete(data_, std::align_val_t{64}); }
  Blocks(const Blocks&) = delete;
  Blocks& operator=(const Blocks&) = delete;

  BlockView<float> view(int64_t index) const {
    const float* block = data_ + index * block_floats();
    return {block, block + dim_ * kBlock, v_stride_, 0};
  }

 private:
  int64_t block_floats() const { return kBlock * (dim_ + v_stride_); }

  int64_t dim_, v_stride_, count_;
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

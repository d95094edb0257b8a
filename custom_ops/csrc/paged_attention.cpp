// paged_attention: writes K and V into the cache, then attends; see custom_ops/paged_attention.py.
//
// Rows, the (token, query head) pairs that read one KV head of one sequence, are taken 8 at a time:
// a tile. A tile walks the sequence's blocks of 16 tokens once, with the online softmax of Milakov
// and Gimelshein (arXiv:1805.02867) per row. A row's sums do not depend on its neighbours in the
// tile or the batch.
#include "attention_call.h"
#include "kv_block.h"
#include "ops.h"

namespace ingot::INGOT_LEVEL {
namespace {

constexpr int kTileRows = 8;
constexpr int kScoreRows = kLanes / 2;  // rows whose 16 scores fit the registers together
constexpr int kScoreVectors = kBlock / kLanes;
constexpr int64_t kScoreDepth = 32;
constexpr float kInfinity = __builtin_inff();

struct Tile {
  int rows;
  const float* q[kTileRows];
  alignas(64) float rotated[kTileRows][kMaxHeadDim];  // what they point to, if q is to be rotated
  float* out[kTileRows];
  int64_t position[kTileRows];  // of the row's token
  int64_t first[kTileRows];     // positions that a row sees in this walk: [first, last]
  int64_t last[kTileRows];
  alignas(64) float weights[kTileRows][kBlock];  // scores, then exp(score - max)
  alignas(64) float sums[kTileRows][kMaxHeadDim];
  float max[kTileRows];
  float total[kTileRows];
  float rescale[kTileRows];
  int begin[kTileRows];  // tokens of the current block that a row sees: [begin, end)
  int end[kTileRows];
};

void set_rows(Tile& tile, const AttentionCall& call, int64_t sequence, int64_t kv_head,
              int64_t first_row) {
  const int64_t group = call.group();
  const int64_t count = call.new_tokens(sequence);
  const int64_t left = count * group - first_row;
  tile.rows = static_cast<int>(left < kTileRows ? left : kTileRows);
  for (int r = 0; r < tile.rows; r++) {
    const int64_t index = (first_row + r) / group;
    const int64_t token = call.query_start[sequence] + index;
    const int64_t head = kv_head * group + (first_row + r) % group;
    tile.q[r] = call.q.at(token, head);
    if (call.rotary.pairs > 0) {
      call.rotary.turn(tile.q[r], call.dim, token, tile.rotated[r]);
      tile.q[r] = tile.rotated[r];
    }
    tile.out[r] = call.out + (token * call.query_heads + head) * call.dim;
    tile.position[r] = call.seq_lens[sequence] - count + index;
    tile.max[r] = -kInfinity;
    tile.total[r] = 0.0f;
    memset(tile.sums[r], 0, padded(call.dim) * sizeof(float));
  }
}

// weights[row][0..16) = q[row] . K, for kRows rows. Sums of kScoreDepth terms are added up, which
// keeps the rounding error of a large head_dim down.
template <int kRows>
void scores(Tile& tile, int row, const float* k, int64_t dim) {
  const float* q[kRows];
  for (int r = 0; r < kRows; r++) q[r] = tile.q[row + r];
  for (int64_t begin = 0; begin < dim; begin += kScoreDepth) {
    const int64_t end = begin + kScoreDepth < dim ? begin + kScoreDepth : dim;
    Vec acc[kRows][kScoreVectors] = {};
    for (int64_t d = begin; d < end; d++) {
#pragma GCC unroll 4
      for (int v = 0; v < kScoreVectors; v++) {
        const Vec keys = load<Vec>(k + d * kBlock + v * kLanes);
#pragma GCC unroll 8
        for (int r = 0; r < kRows; r++) acc[r][v] += broadcast(q[r][d]) * keys;
      }
    }
#pragma GCC unroll 8
    for (int r = 0; r < kRows; r++) {
#pragma GCC unroll 4
      for (int v = 0; v < kScoreVectors; v++) {
        float* weights = tile.weights[row + r] + v * kLanes;
        store(weights, begin == 0 ? acc[r][v] : load<Vec>(weights) + acc[r][v]);
      }
    }
  }
}

Vec scaled(Vec scores, float scale, float softcap) {
  return softcap == 0.0f ? scores * scale : tanh(scores * (scale / softcap)) * softcap;
}

// Turns a row's scores into softmax weights relative to the largest score so far; tokens that the
// row does not see weigh 0. Leaves in `rescale` the factor for the row's earlier sums.
void soften(Tile& tile, int r, float scale, float softcap) {
  Vec weights[kScoreVectors];
  VecInt seen[kScoreVectors];
  Vec largest = broadcast(tile.max[r]);
  for (int v = 0; v < kScoreVectors; v++) {
    const VecInt token = lane_numbers() + v * kLanes;
    seen[v] = (token >= tile.begin[r]) & (token < tile.end[r]);
    weights[v] = scaled(load<Vec>(tile.weights[r] + v * kLanes), scale, softcap);
    weights[v] = seen[v] ? weights[v] : broadcast(-kInfinity);
    largest = larger(largest, weights[v]);
  }
  const float max = largest_lane(largest);
  const float shift = max == -kInfinity ? 0.0f : max;  // else -inf - -inf
  Vec total{};
  for (int v = 0; v < kScoreVectors; v++) {
    weights[v] = exp_negative(weights[v] - shift);
    total += seen[v] ? weights[v] : Vec{};
    store(tile.weights[r] + v * kLanes, weights[v]);
  }
  tile.rescale[r] = exp_negative(broadcast(tile.max[r] - shift))[0];
  tile.max[r] = max;
  tile.total[r] = tile.total[r] * tile.rescale[r] + sum_of_lanes(total);
}

// sums[row] = sums[row] * rescale + weights . V, for kRows rows that see the same tokens.
template <int kRows>
void accumulate(Tile& tile, int row, const BlockView& block) {
  const int begin = tile.begin[row];
  const int end = tile.end[row];
  for (int64_t d = 0; d < block.v_stride; d += kLanes) {
    Vec acc[kRows] = {};
    for (int t = begin; t < end; t++) {
      const Vec values = load<Vec>(block.v + t * block.v_stride + d);
#pragma GCC unroll 8
      for (int r = 0; r < kRows; r++) acc[r] += broadcast(tile.weights[row + r][t]) * values;
    }
#pragma GCC unroll 8
    for (int r = 0; r < kRows; r++) {
      float* sums = tile.sums[row + r] + d;
      store(sums, load<Vec>(sums) * tile.rescale[row + r] + acc[r]);
    }
  }
}

// Sets which tokens of the block at `position` each row sees; true if all rows see the same.
bool see(Tile& tile, int64_t position) {
  bool uniform = true;
  for (int r = 0; r < tile.rows; r++) {
    const int64_t begin = tile.first[r] - position;
    const int64_t end = tile.last[r] + 1 - position;
    tile.begin[r] = static_cast<int>(begin < 0 ? 0 : begin > kBlock ? kBlock : begin);
    tile.end[r] = static_cast<int>(end < 0 ? 0 : end > kBlock ? kBlock : end);
    uniform &= tile.begin[r] == tile.begin[0] && tile.end[r] == tile.end[0];
  }
  return uniform;
}

void add_block(Tile& tile, const BlockView& block, int64_t position, const AttentionCall& call) {
  const bool uniform = see(tile, position);
  int r = 0;
  for (; r + kScoreRows <= tile.rows; r += kScoreRows)
    scores<kScoreRows>(tile, r, block.k, call.dim);
  for (; r < tile.rows; r++) scores<1>(tile, r, block.k, call.dim);
  for (r = 0; r < tile.rows; r++) {
    if (tile.begin[r] < tile.end[r]) soften(tile, r, call.scale, call.softcap);
  }
  if (uniform && tile.rows == kTileRows) return accumulate<kTileRows>(tile, 0, block);
  for (r = 0; r < tile.rows; r++) {
    if (tile.begin[r] < tile.end[r]) accumulate<1>(tile, r, block);
  }
}

// Adds the blocks with the positions that the rows see now: their first and last rise row by row.
template <typename T>
void walk(Tile& tile, const AttentionCall& call, int64_t sequence, int64_t kv_head) {
  BlockScratch scratch;
  const int64_t* table = call.block_table + sequence * call.pages;
  for (int64_t page = tile.first[0] / kBlock; page * kBlock <= tile.last[tile.rows - 1]; page++) {
    const char* head = call.cache + table[page] * call.cache_stride + kv_head * call.head_bytes;
    add_block(tile, view_block<T>(head, call.dim, scratch), page * kBlock, call);
  }
}

template <typename T>
void attend(const AttentionCall& call, int64_t sequence, int64_t kv_head, int64_t first_row) {
  Tile tile;
  set_rows(tile, call, sequence, kv_head, first_row);
  if (call.n_sink > 0) {
    for (int r = 0; r < tile.rows; r++) {
      const int64_t window = call.first_seen(tile.position[r]);
      tile.first[r] = 0;
      tile.last[r] = (window < call.n_sink ? window : call.n_sink) - 1;
    }
    walk<T>(tile, call, sequence, kv_head);
  }
  for (int r = 0; r < tile.rows; r++) {
    tile.first[r] = call.first_seen(tile.position[r]);
    tile.last[r] = tile.position[r];
  }
  walk<T>(tile, call, sequence, kv_head);
  for (int r = 0; r < tile.rows; r++) {
    for (int64_t d = 0; d < call.dim; d++) tile.out[r][d] = tile.sums[r][d] / tile.total[r];
  }
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
  const float* k = call.k.at(token, kv_head);
  float rotated[kMaxHeadDim];
  if (call.rotary.pairs > 0) {
    call.rotary.turn(k, call.dim, token, rotated);
    k = rotated;
  }
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

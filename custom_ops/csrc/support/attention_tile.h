// Rows, the (token, query head) pairs that read one KV head of one sequence, are taken 8 at a time:
// a tile. A tile walks the sequence's blocks of 16 tokens once, with the online softmax of Milakov
// and Gimelshein (arXiv:1805.02867) per row. A row's sums do not depend on its neighbours in the
// tile or the batch.
#pragma once

#include "kv_block.h"

namespace ingot::INGOT_LEVEL {
namespace {

constexpr int kTileRows = 8;
constexpr int kScoreRows = kLanes / 2;  // rows whose 16 scores fit the registers together
constexpr int kScoreVectors = kBlock / kLanes;
constexpr int64_t kScoreDepth = 32;
constexpr float kInfinity = __builtin_inff();

// From products of q and k to scores; softcap 0: none.
struct Scores {
  int64_t dim;
  float scale;
  float softcap;
};

struct Tile {
  int rows;
  const float* q[kTileRows];
  float* out[kTileRows];
  int64_t first[kTileRows];  // positions that a row sees in this walk: [first, last]
  int64_t last[kTileRows];
  alignas(64) float weights[kTileRows][kBlock];  // scores, then exp(score - max)
  alignas(64) float sums[kTileRows][kMaxHeadDim];
  float max[kTileRows];
  float total[kTileRows];
  float rescale[kTileRows];
  int begin[kTileRows];  // tokens of the current block that a row sees: [begin, end)
  int end[kTileRows];
};

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

Vec scaled(Vec scores, const Scores& how) {
  if (how.softcap == 0.0f) return scores * how.scale;
  return tanh(scores * (how.scale / how.softcap)) * how.softcap;
}

// Turns a row's scores into softmax weights relative to the largest score so far; tokens that the
// row does not see weigh 0. Leaves in `rescale` the factor for the row's earlier sums.
void soften(Tile& tile, int r, const Scores& how) {
  Vec weights[kScoreVectors];
  VecInt seen[kScoreVectors];
  Vec largest = broadcast(tile.max[r]);
  for (int v = 0; v < kScoreVectors; v++) {
    const VecInt token = lane_numbers() + v * kLanes;
    seen[v] = (token >= tile.begin[r]) & (token < tile.end[r]);
    weights[v] = scaled(load<Vec>(tile.weights[r] + v * kLanes), how);
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

// Adds a block's 16 tokens, the first of them at `position`, to the rows that see them.
void add_block(Tile& tile, const BlockView& block, int64_t position, const Scores& how) {
  const bool uniform = see(tile, position);
  int r = 0;
  for (; r + kScoreRows <= tile.rows; r += kScoreRows)
    scores<kScoreRows>(tile, r, block.k, how.dim);
  for (; r < tile.rows; r++) scores<1>(tile, r, block.k, how.dim);
  for (r = 0; r < tile.rows; r++) {
    if (tile.begin[r] < tile.end[r]) soften(tile, r, how);
  }
  if (uniform && tile.rows == kTileRows) return accumulate<kTileRows>(tile, 0, block);
  for (r = 0; r < tile.rows; r++) {
    if (tile.begin[r] < tile.end[r]) accumulate<1>(tile, r, block);
  }
}

// Writes the rows' results and leaves the tile for others.
void finish(const Tile& tile, int64_t dim) {
  for (int r = 0; r < tile.rows; r++) {
    for (int64_t d = 0; d < dim; d++) tile.out[r][d] = tile.sums[r][d] / tile.total[r];
  }
}

// Makes row `r` empty, to write to `out`.
void begin_row(Tile& tile, int r, const float* q, float* out, int64_t dim) {
  tile.q[r] = q;
  tile.out[r] = out;
  tile.max[r] = -kInfinity;
  tile.total[r] = 0.0f;
  memset(tile.sums[r], 0, padded(dim) * sizeof(float));
}

}  // namespace
}  // namespace ingot::INGOT_LEVEL

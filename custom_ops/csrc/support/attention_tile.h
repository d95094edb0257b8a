// Attention of up to 32 rows, the (token, query head) pairs that read one KV head of one sequence:
// a tile. It walks the sequence 64 tokens at a time, with the online softmax of Milakov and
// Gimelshein (arXiv:1805.02867) per row, tiled as in Dao et al. (arXiv:2205.14135). The steps lie
// at multiples of 64 tokens and each sum runs in the tokens' order, so a row's result does not
// depend on its neighbours in the tile or the batch.
#pragma once

#include <utility>

#include "kv_block.h"

namespace ingot::INGOT_LEVEL {
namespace {

constexpr int kTileRows = 32;
constexpr int kStepBlocks = 4;
constexpr int kStepTokens = kStepBlocks * kBlock;
constexpr int kBlockVectors = kBlock / kLanes;
constexpr int kStepVectors = kStepTokens / kLanes;
constexpr int kRowGroup = kLanes / 2;               // rows whose sums fit the registers together
constexpr int kGroupBlocks = kLanes == 16 ? 2 : 1;  // blocks of whose scores that is so
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
  alignas(64) float q[kMaxHeadDim][kTileRows];  // the rows side by side: one pointer reaches all
  float* out[kTileRows];
  int64_t first[kTileRows];  // positions that a row sees in this walk: [first, last]
  int64_t last[kTileRows];
  alignas(64) float weights[kTileRows][kStepTokens];  // scores, then exp(score - max)
  alignas(64) float sums[kTileRows][kMaxHeadDim];
  alignas(64) float step[kTileRows][kMaxHeadDim];  // this step's part of the sums
  float max[kTileRows];
  float total[kTileRows];
  float rescale[kTileRows];
  int begin[kTileRows];  // tokens of the step that a row sees: [begin, end)
  int end[kTileRows];
};

// The blocks of one step; those that no row sees are not set.
using StepBlocks = BlockView[kStepBlocks];

// Calls body(row, std::integral_constant<int, rows>) for runs of rows: whole groups, then halves.
template <int kRows = kRowGroup, typename Body>
inline void for_row_groups(int row, int end, Body body) {
  for (; row + kRows <= end; row += kRows) body(row, std::integral_constant<int, kRows>());
  if constexpr (kRows > 1) for_row_groups<kRows / 2>(row, end, body);
}

// The two products are functions of their own: inlined, the compiler keeps their sums in memory.

// weights[row][0..16 kBlocks) = q[row] . K of kBlocks blocks, for kRows rows. Sums of kScoreDepth
// terms are added up, which keeps the rounding error of a large head_dim down.
template <int kRows, int kBlocks>
[[gnu::noinline]] void multiply_keys(Tile& tile, int row, const BlockView* blocks, float* weights,
                                     int64_t dim) {
  constexpr int kVectors = kBlocks * kBlockVectors;
  for (int64_t begin = 0; begin < dim; begin += kScoreDepth) {
    const int64_t end = begin + kScoreDepth < dim ? begin + kScoreDepth : dim;
    Vec acc[kRows][kVectors] = {};
    for (int64_t d = begin; d < end; d++) {
      const float* q = tile.q[d] + row;
#pragma GCC unroll 16
      for (int v = 0; v < kVectors; v++) {
        const float* k = blocks[v / kBlockVectors].k + d * kBlock + v % kBlockVectors * kLanes;
        const Vec keys = load<Vec>(k);
#pragma GCC unroll 8
        for (int r = 0; r < kRows; r++) acc[r][v] += broadcast(q[r]) * keys;
      }
    }
#pragma GCC unroll 8
    for (int r = 0; r < kRows; r++) {
#pragma GCC unroll 16
      for (int v = 0; v < kVectors; v++) {
        float* to = weights + r * kStepTokens + v * kLanes;
        store(to, begin == 0 ? acc[r][v] : load<Vec>(to) + acc[r][v]);
      }
    }
  }
}

// Several blocks at once: a register of keys is then read for many sums, and no sum waits for
// itself.
template <int kRows>
void multiply_keys(Tile& tile, int row, const StepBlocks& blocks, int from, int to, int64_t dim) {
  constexpr int kBlocks = kRows == kRowGroup ? kGroupBlocks : kRows >= 2 ? 2 : kStepBlocks;
  int b = from;
  for (; b + kBlocks <= to; b += kBlocks) {
    multiply_keys<kRows, kBlocks>(tile, row, blocks + b, tile.weights[row] + b * kBlock, dim);
  }
  for (; b < to; b++) {
    multiply_keys<kRows, 1>(tile, row, blocks + b, tile.weights[row] + b * kBlock, dim);
  }
}

Vec scaled(Vec scores, const Scores& how) {
  if (how.softcap == 0.0f) return scores * how.scale;
  return tanh(scores * (how.scale / how.softcap)) * how.softcap;
}

// Turns a row's scores into softmax weights relative to the largest score so far; tokens that the
// row does not see, if there are any (kMasked), weigh 0. Leaves in `rescale` the factor for the
// row's earlier sums.
template <bool kMasked>
void soften(Tile& tile, int r, const Scores& how) {
  Vec weights[kStepVectors];
  VecInt seen[kStepVectors];
  Vec largest = broadcast(tile.max[r]);
#pragma GCC unroll 16
  for (int v = 0; v < kStepVectors; v++) {
    weights[v] = scaled(load<Vec>(tile.weights[r] + v * kLanes), how);
    if constexpr (kMasked) {
      const VecInt token = lane_numbers() + v * kLanes;
      seen[v] = (token >= tile.begin[r]) & (token < tile.end[r]);
      weights[v] = seen[v] ? weights[v] : broadcast(-kInfinity);
    }
    largest = larger(largest, weights[v]);
  }
  const float max = largest_lane(largest);
  const float shift = max == -kInfinity ? 0.0f : max;  // else -inf - -inf
  Vec total{};
#pragma GCC unroll 16
  for (int v = 0; v < kStepVectors; v++) {
    weights[v] = exp_negative(weights[v] - shift);
    if constexpr (kMasked) weights[v] = seen[v] ? weights[v] : Vec{};
    total += weights[v];
    store(tile.weights[r] + v * kLanes, weights[v]);
  }
  tile.rescale[r] = exp_negative(broadcast(tile.max[r] - shift))[0];
  tile.max[r] = max;
  tile.total[r] = tile.total[r] * tile.rescale[r] + sum_of_lanes(total);
}

// step[row] += weights . V over the step's tokens [from, to), for kRows rows and, at dimension d,
// kColumns vectors; from zero if `fresh`.
template <int kRows, int kColumns>
[[gnu::noinline]] void add_values_at(Tile& tile, int row, const StepBlocks& blocks, int from,
                                     int to, int64_t d, bool fresh) {
  Vec acc[kRows][kColumns] = {};
  for (int r = 0; r < kRows && !fresh; r++) {
    for (int c = 0; c < kColumns; c++) {
      acc[r][c] = load<Vec>(tile.step[row + r] + d + c * kLanes);
    }
  }
  const float* weights = tile.weights[row];
  for (int t = from; t < to;) {
    const BlockView& block = blocks[t / kBlock];
    const int64_t stride = block.v_stride;
    const float* v = block.v + t % kBlock * stride + d;
    const int end = (t / kBlock + 1) * kBlock < to ? (t / kBlock + 1) * kBlock : to;
    for (; t < end; t++, v += stride) {
#pragma GCC unroll 8
      for (int c = 0; c < kColumns; c++) {
        const Vec values = load<Vec>(v + c * kLanes);
#pragma GCC unroll 8
        for (int r = 0; r < kRows; r++) {
          acc[r][c] += broadcast(weights[r * kStepTokens + t]) * values;
        }
      }
    }
  }
#pragma GCC unroll 8
  for (int r = 0; r < kRows; r++) {
#pragma GCC unroll 8
    for (int c = 0; c < kColumns; c++) {
      store(tile.step[row + r] + d + c * kLanes, acc[r][c]);
    }
  }
}

template <int kRows>
void add_values(Tile& tile, int row, const StepBlocks& blocks, int from, int to, int64_t padded_dim,
                bool fresh) {
  constexpr int kColumns = kRows == kRowGroup ? kGroupBlocks : kRows >= 2 ? 2 : 4;
  int64_t d = 0;
  for (; d + kColumns * kLanes <= padded_dim; d += kColumns * kLanes) {
    add_values_at<kRows, kColumns>(tile, row, blocks, from, to, d, fresh);
  }
  for (; d < padded_dim; d += kLanes) {
    add_values_at<kRows, 1>(tile, row, blocks, from, to, d, fresh);
  }
}

// The rows' weights times V: the tokens before those that all rows see, then those that
// all see, then the rest: each row's sum in the tokens' order throughout.
template <int kRows>
void accumulate(Tile& tile, int row, const StepBlocks& blocks, int64_t padded_dim) {
  int from = 0, to = kStepTokens;  // what all rows see
  for (int r = row; r < row + kRows; r++) {
    from = tile.begin[r] > from ? tile.begin[r] : from;
    to = tile.end[r] < to ? tile.end[r] : to;
  }
  if (to < from) to = from;
  bool together = true;  // all begin at `from`
  for (int r = row; r < row + kRows; r++) together &= tile.begin[r] == from;
  for (int r = row; r < row + kRows && !together; r++) {
    const int end = tile.end[r] < from ? tile.end[r] : from;
    add_values<1>(tile, r, blocks, tile.begin[r], end, padded_dim, true);
  }
  add_values<kRows>(tile, row, blocks, from, to, padded_dim, together);
  for (int r = row; r < row + kRows; r++) {
    const int begin = tile.begin[r] > to ? tile.begin[r] : to;
    if (begin < tile.end[r]) {
      add_values<1>(tile, r, blocks, begin, tile.end[r], padded_dim, false);
    }
    for (int64_t d = 0; d < padded_dim; d += kLanes) {
      float* sums = tile.sums[r] + d;
      store(sums, load<Vec>(sums) * tile.rescale[r] + load<Vec>(tile.step[r] + d));
    }
  }
}

// Sets which tokens of the step at `position` each row sees, and returns the range of all of them.
std::pair<int, int> see(Tile& tile, int64_t position) {
  std::pair<int, int> seen = {kStepTokens, 0};
  for (int r = 0; r < tile.rows; r++) {
    const int64_t begin = tile.first[r] - position, end = tile.last[r] + 1 - position;
    tile.begin[r] = static_cast<int>(begin < 0 ? 0 : begin);
    tile.end[r] = static_cast<int>(end > kStepTokens ? kStepTokens : end);
    if (tile.begin[r] >= tile.end[r]) {
      tile.begin[r] = tile.end[r] = 0;
      continue;
    }
    seen.first = tile.begin[r] < seen.first ? tile.begin[r] : seen.first;
    seen.second = tile.end[r] > seen.second ? tile.end[r] : seen.second;
  }
  return seen;
}

// Adds the tokens from `position`, a multiple of kStepTokens, to the rows that see them.
// view(index) is the block of 16 tokens at that index of the sequence, in the scratch space of
// that number; only blocks that a row sees are asked for.
template <typename View>
void add_step(Tile& tile, int64_t position, const Scores& how, View view) {
  const auto [begin, end] = see(tile, position);
  if (begin >= end) return;
  const int from = begin / kBlock, to = (end + kBlock - 1) / kBlock;
  StepBlocks blocks;
  for (int b = from; b < to; b++) blocks[b] = view(position / kBlock + b, b);
  for_row_groups(0, tile.rows, [&](int row, auto rows) {
    multiply_keys<rows>(tile, row, blocks, from, to, how.dim);
  });
  for (int r = 0; r < tile.rows; r++) {
    tile.rescale[r] = 1.0f;
    const int count = tile.end[r] - tile.begin[r];
    if (count > 0) count == kStepTokens ? soften<false>(tile, r, how) : soften<true>(tile, r, how);
  }
  for_row_groups(0, tile.rows,
                 [&](int row, auto rows) { accumulate<rows>(tile, row, blocks, padded(how.dim)); });
}

// Adds all that the rows see now: their first and last positions rise row by row.
template <typename View>
void walk(Tile& tile, const Scores& how, View view) {
  const int64_t last = tile.last[tile.rows - 1];
  for (int64_t position = tile.first[0] / kStepTokens * kStepTokens; position <= last;
       position += kStepTokens) {
    add_step(tile, position, how, view);
  }
}

// Makes row `r` empty, to write to `out`.
void begin_row(Tile& tile, int r, const float* q, float* out, int64_t dim) {
  for (int64_t d = 0; d < dim; d++) tile.q[d][r] = q[d];
  tile.out[r] = out;
  tile.max[r] = -kInfinity;
  tile.total[r] = 0.0f;
  memset(tile.sums[r], 0, padded(dim) * sizeof(float));
}

// Writes the rows' results.
void finish(const Tile& tile, int64_t dim) {
  for (int r = 0; r < tile.rows; r++) {
    for (int64_t d = 0; d < dim; d++) tile.out[r][d] = tile.sums[r][d] / tile.total[r];
  }
}

}  // namespace
}  // namespace ingot::INGOT_LEVEL

// Attention of up to 48 or 96 rows, the (token, query head) pairs that read one KV head of one
// sequence: a tile. It walks the sequence 64 tokens at a time, with the online softmax of Milakov
// and Gimelshein (arXiv:1805.02867) per row, tiled as in Dao et al. (arXiv:2205.14135). The
// sequence is a row of segments of 512 tokens, each summed for itself and then added up in order,
// so that several threads can share a long one (Flash-Decoding). Steps and segments lie at
// multiples of their length and each sum runs in the tokens' order: a row's result does not depend
// on its neighbours in the tile or the batch, nor on who computed which segment.
#pragma once

#include <utility>

#include "amx.h"
#include "blocks_ahead.h"

namespace ingot::INGOT_LEVEL {
namespace {

constexpr int kTileRows = kHasAmx ? 96 : 48;
constexpr int kStepTokens = kStepBlocks * kBlock;
constexpr int kStepVectors = kStepTokens / kLanes;
constexpr int kSegmentTokens = 512;
constexpr int kRowFloats = kMaxHeadDim + 16;  // not a power of two: rows would share cache sets
constexpr float kInfinity = __builtin_inff();

// From products of q and k to scores; softcap 0: none. Scores are times log2 e from the start, so
// that their weights are powers of 2.
struct Scores {
  int64_t dim;
  float scale;
  float softcap;

  static constexpr float kLog2E = 1.44269504088896341f;
  // What q is multiplied by.
  float of_query() const { return softcap == 0.0f ? scale * kLog2E : scale / softcap; }
  // What the tanh of a score is multiplied by, if there is a softcap.
  float of_tanh() const { return softcap * kLog2E; }
};

// Rows of softmax sums, relative to 2^max: no score seen so far is larger than max + kRise.
template <int kCapacity>
struct Partial {
  alignas(64) float max[kCapacity];
  alignas(64) float total[kCapacity];
  float (*sums)[kRowFloats];
};

// The scales of a step's tokens, if its keys and values are codes.
struct StepScales {
  bool scaled;
  alignas(64) float k_scales[kStepTokens];
  alignas(64) float v_scales[kStepTokens];
};

template <int kCapacity>
struct TileOf : StepScales {
  static constexpr int kSpaceRows = 3 * kCapacity;

  int rows;
  Ahead ahead;
  float (*q)[kRowFloats];  // times Scores::of_query
  float* out[kCapacity];
  int64_t first[kCapacity];  // positions that a row sees in this walk: [first, last]
  int64_t last[kCapacity];
  float (*weights)[kStepTokens];                // scores, then 2^(score - max); a line begins there
  alignas(64) float totals[kCapacity][kLanes];  // of the segment, lane by lane
  alignas(64) float shift[kCapacity];           // max, or 0 where that is -inf
  alignas(64) float rescale[kCapacity];
  int begin[kCapacity];  // tokens of the step that a row sees: [begin, end)
  int end[kCapacity];
  Partial<kCapacity> segment, all;  // `total` of the segment is set when it ends

  // Takes kSpaceRows rows, on a cache line, for queries and sums.
  void take_space(float (*space)[kRowFloats]) {
    q = space;
    segment.sums = space + kCapacity;
    all.sums = space + 2 * kCapacity;
  }
};

using Tile = TileOf<kTileRows>;

// The blocks of one step; those that no row sees are not set.
template <typename T>
using StepBlocks = BlockView<T>[kStepBlocks];

// A position as a token of the step at `position`, one of its ends if it is not there.
inline int within_step(int64_t at, int64_t position) {
  const int64_t token = at - position;
  return static_cast<int>(token < 0 ? 0 : token > kStepTokens ? kStepTokens : token);
}

// The tokens of the step at `position` that some row sees. Rows see from and up to positions that
// rise from row to row.
template <int kCapacity>
std::pair<int, int> seen_tokens(const TileOf<kCapacity>& tile, int64_t position) {
  return {within_step(tile.first[0], position),
          within_step(tile.last[tile.rows - 1] + 1, position)};
}

// Whether every row sees all of the step at `position`.
template <int kCapacity>
bool all_see(const TileOf<kCapacity>& tile, int64_t position) {
  return tile.first[tile.rows - 1] <= position && tile.last[0] >= position + kStepTokens - 1;
}

// Sets which tokens of the step at `position` each row sees, and returns the range of all of them.
template <int kCapacity>
std::pair<int, int> see(TileOf<kCapacity>& tile, int64_t position) {
  if (all_see(tile, position)) {
    for (int r = 0; r < tile.rows; r++) tile.begin[r] = 0;
    for (int r = 0; r < tile.rows; r++) tile.end[r] = kStepTokens;
    return {0, kStepTokens};
  }
  for (int r = 0; r < tile.rows; r++) {
    tile.begin[r] = within_step(tile.first[r], position);
    tile.end[r] = within_step(tile.last[r] + 1, position);
    if (tile.begin[r] >= tile.end[r]) tile.begin[r] = tile.end[r] = 0;
  }
  return seen_tokens(tile, position);
}

// Sets the scales of the blocks [from, to) of the step, if they have any.
template <typename T>
void take_scales(StepScales& scales, const StepBlocks<T>& blocks, int from, int to) {
  scales.scaled = blocks[from].k_scales != nullptr;
  if (!scales.scaled) return;
  for (int b = from; b < to; b++) {
    const BlockView<T>& block = blocks[b];
    memcpy(scales.k_scales + b * kBlock, block.k_scales, kScaleBytes);
    memcpy(scales.v_scales + b * kBlock, block.v_scales, kScaleBytes);
  }
}

// Sets the blocks that hold the tokens [begin, end) of the step at `position`, and their scales.
// view(index, place) is the block of 16 tokens at that index of the sequence, the place'th of the
// step; only blocks that a row sees are asked for. Returns the range of the blocks.
template <typename T, typename View, int kCapacity>
std::pair<int, int> take_blocks(TileOf<kCapacity>& tile, int64_t position, int begin, int end,
                                View view, StepBlocks<T>& blocks) {
  const int from = begin / kBlock, to = (end + kBlock - 1) / kBlock;
  for (int b = from; b < to; b++) {
    blocks[b] = view(position / kBlock + b, b);
    tile.ahead.add(blocks[b]);
  }
  take_scales(tile, blocks, from, to);
  return {from, to};
}

// Makes row `r` empty, to write to `out`.
template <int kCapacity>
void begin_row(TileOf<kCapacity>& tile, int r, float* out, int64_t dim) {
  tile.out[r] = out;
  tile.all.max[r] = -kInfinity;
  tile.all.total[r] = 0.0f;
  memset(tile.all.sums[r], 0, padded(dim) * sizeof(float));
}

template <int kCapacity>
void take_query(TileOf<kCapacity>& tile, int r, const float* q, const Scores& how) {
  const float factor = how.of_query();
  for (int64_t d = 0; d < how.dim; d++) tile.q[r][d] = q[d] * factor;
}

template <int kCapacity>
void begin_totals(TileOf<kCapacity>& tile) {
  for (int r = 0; r < tile.rows; r += kLanes) store(tile.segment.max + r, broadcast(-kInfinity));
  memset(tile.totals, 0, tile.rows * sizeof(tile.totals[0]));
}

template <int kCapacity>
void clear_sums(TileOf<kCapacity>& tile, int64_t dim) {
  for (int r = 0; r < tile.rows; r++) memset(tile.segment.sums[r], 0, padded(dim) * sizeof(float));
}

template <int kCapacity>
void begin_segment(TileOf<kCapacity>& tile, int64_t dim) {
  begin_totals(tile);
  clear_sums(tile, dim);
}

// Calls add(position) for the steps between the positions `begin` and `end` that some row sees.
template <typename Add, int kCapacity>
void walk_steps(const TileOf<kCapacity>& tile, int64_t begin, int64_t end, Add add) {
  const int64_t first = tile.first[0], last = tile.last[tile.rows - 1];
  begin = first > begin ? first / kStepTokens * kStepTokens : begin;
  end = last + 1 < end ? last + 1 : end;
  for (; begin < end; begin += kStepTokens) add(begin);
}

template <int kCapacity>
void end_segment(TileOf<kCapacity>& tile) {
  for (int r = 0; r < tile.rows; r++) {
    tile.segment.total[r] = sum_of_lanes(load<Vec>(tile.totals[r]));
  }
}

// tile.all += tile.segment
template <int kCapacity>
void add_segment(TileOf<kCapacity>& tile, int64_t dim) {
  alignas(64) float own[kTileRows], added[kTileRows];
  for (int r = 0; r < tile.rows; r += kLanes) {
    const Vec before = load<Vec>(tile.all.max + r), max = load<Vec>(tile.segment.max + r);
    const Vec largest = larger(max, before);
    const Vec shift = largest == -kInfinity ? Vec{} : largest;
    const Vec factor = exp2(before - shift), other = exp2(max - shift);
    store(tile.all.max + r, largest);
    store(tile.all.total + r,
          load<Vec>(tile.all.total + r) * factor + load<Vec>(tile.segment.total + r) * other);
    store(own + r, factor);
    store(added + r, other);
  }
  for (int r = 0; r < tile.rows; r++) {
    for (int64_t d = 0; d < padded(dim); d += kLanes) {
      const Vec segment = load<Vec>(tile.segment.sums[r] + d) * added[r];
      store(tile.all.sums[r] + d, load<Vec>(tile.all.sums[r] + d) * own[r] + segment);
    }
  }
}

// Writes the rows' results.
template <int kCapacity>
void finish(const TileOf<kCapacity>& tile, int64_t dim) {
  for (int r = 0; r < tile.rows; r++) {
    const float factor = 1.0f / tile.all.total[r];
    for (int64_t d = 0; d < dim; d++) tile.out[r][d] = tile.all.sums[r][d] * factor;
  }
}

}  // namespace
}  // namespace ingot::INGOT_LEVEL

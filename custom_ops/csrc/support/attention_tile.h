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
#include "kv_block.h"

namespace ingot::INGOT_LEVEL {
namespace {

constexpr int kTileRows = kHasAmx ? 96 : 48;
constexpr int kStepBlocks = 4;
constexpr int kStepTokens = kStepBlocks * kBlock;
constexpr int kStepVectors = kStepTokens / kLanes;
constexpr int kSegmentTokens = 512;
constexpr int64_t kScoreDepth = 32;           // terms of a score in one sum
constexpr int kRowFloats = kMaxHeadDim + 16;  // not a power of two: rows would share cache sets
constexpr float kInfinity = __builtin_inff();
// A row's sums stay relative to what they are until a score is 2^8 times that: after a segment's
// first step they are hardly ever rescaled, and float32 tells the larger weights as well.
constexpr float kRise = 8.0f;

// How a tile is cut for the registers: rows, and vectors of each, whose sums they hold together.
// Many rows: K and V come from the caches, the products are what takes time.
struct ManyRows {
  static constexpr int kRows = kLanes == 4 ? 4 : 6;
  static constexpr int kVectors = kLanes == 16 ? 4 : 2;
  static constexpr int kSums = kLanes == 16 ? 2 : 1;  // of a score at once, over half the vectors
  static constexpr bool kFetch = false;
};

// Few rows: K and V come from memory, each is read by all rows at once, and the blocks one step
// ahead are fetched meanwhile.
struct FewRows {
  static constexpr int kLimit = 12;
  static constexpr int kRows = kLanes == 16 ? 8 : 4;
  static constexpr int kVectors = 2;
  static constexpr int kSums = 1;
  static constexpr bool kFetch = true;
};
constexpr int kFetchEvery = 4;  // dimensions of keys, tokens of values, maxima of rows

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

// The blocks of the next step, fetched from memory in shares between what this one computes,
// evenly: the CPU drops prefetches for which it has no buffer. Each block lies in pages of its own,
// where the hardware fetches on what follows a few lines in order: it does so in all of them at
// once where their lines are fetched side by side.
class Ahead {
 public:
  Ahead() = default;
  explicit Ahead(int64_t shares) : shares_(shares) {}

  template <typename T>
  void add(const BlockView<T>& block) {
    if (block.ahead == nullptr) return;
    const char* end = reinterpret_cast<const char*>(block.v + kBlock * block.v_stride);
    bytes_ = (end - start_of(block) + kLine - 1) / kLine * kLine;
    for (int b = count_++; b < kStepBlocks; b++) blocks_[b] = block.ahead;
  }

  // Fetches the next share, into L1 too.
  void fetch() {
    if (next_ == bytes_) return;
    due_ += bytes_;
    for (; due_ >= shares_ * kLine && next_ < bytes_; next_ += kLine, due_ -= shares_ * kLine) {
#pragma GCC unroll 4
      for (int b = 0; b < kStepBlocks; b++) {
        __builtin_prefetch(blocks_[b] + next_);
      }
    }
  }

  // Reads all of them, which the CPU cannot drop. Another thread may be writing there.
  void load() {
    for (; next_ < bytes_; next_ += kLine) {
      for (int b = 0; b < kStepBlocks; b++)
        __asm__ volatile("testb $0, %0" : : "m"(blocks_[b][next_]) : "cc");
    }
  }

 private:
  static constexpr int64_t kLine = 64;

  const char* blocks_[kStepBlocks];  // the last fills up what is not there
  int count_ = 0;
  int64_t shares_ = 1, bytes_ = 0;  // of a block, whole lines
  int64_t next_ = 0;                // byte of each block
  int64_t due_ = 0;                 // bytes that are due and not fetched, times shares_
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

// Calls body(i, std::integral_constant<int, size>) for runs of `size`: kLargest, then half of it
// (or 2 for 6) and so on down to 1.
template <int kLargest, typename Body>
inline void for_runs(int begin, int end, Body body) {
  for (; begin + kLargest <= end; begin += kLargest) {
    body(begin, std::integral_constant<int, kLargest>());
  }
  if constexpr (kLargest > 1) for_runs<(kLargest == 6 ? 2 : kLargest / 2)>(begin, end, body);
}

// The two products are functions of their own: inlined, the compiler keeps their sums in memory.

// weights[r][0..kVectors * kLanes) = q[r] . K of the tokens from `token`, for kRows rows. Runs of
// up to 2 kScoreDepth terms are added up as the sums of their halves, which keeps the rounding
// error of a large head_dim down.
template <typename Cut, int kRows, int kVectors, typename T>
[[gnu::noinline]] void multiply_keys(const float (*q)[kRowFloats], const BlockView<T>* blocks,
                                     int token, int64_t dim, float (*weights)[kStepTokens],
                                     Ahead& ahead) {
  constexpr int kSums = Cut::kSums;
  const T* keys[kVectors];
#pragma GCC unroll 4
  for (int v = 0; v < kVectors; v++) {
    const BlockView<T>& block = blocks[(token + v * kLanes) / kBlock];
    keys[v] = block.k + (token + v * kLanes) % kBlock;
  }
  for (int64_t begin = 0; begin < dim; begin += 2 * kScoreDepth) {
    const bool whole = dim - begin >= 2 * kScoreDepth;
    const int64_t half = whole ? kScoreDepth : (dim - begin) / 2;
    for (int first = 0; first < 2; first += kSums) {
      Vec acc[kSums][kRows][kVectors] = {};
      const auto add = [&](int s, int64_t d) {
        if constexpr (Cut::kFetch) {
          if (d % kFetchEvery == 0) ahead.fetch();
        }
        Vec key[kVectors];
#pragma GCC unroll 4
        for (int v = 0; v < kVectors; v++) {
          key[v] = load_floats(keys[v] + d * kBlock);
        }
#pragma GCC unroll 8
        for (int r = 0; r < kRows; r++) {
          const Vec query = broadcast(q[r][d]);
#pragma GCC unroll 4
          for (int v = 0; v < kVectors; v++) acc[s][r][v] += query * key[v];
        }
      };
      const int64_t from = begin + first * half;
      for (int64_t d = from; d < from + half; d++) {
#pragma GCC unroll 2
        for (int s = 0; s < kSums; s++) add(s, d + s * half);
      }
      if (first == 0 && !whole && dim % 2 != 0) add(0, dim - 1);
#pragma GCC unroll 8
      for (int r = 0; r < kRows; r++) {
#pragma GCC unroll 4
        for (int v = 0; v < kVectors; v++) {
          float* to = weights[r] + token + v * kLanes;
          Vec sum = begin + first == 0 ? acc[0][r][v] : load<Vec>(to) + acc[0][r][v];
          if constexpr (kSums == 2) sum += acc[1][r][v];
          store(to, sum);
        }
      }
    }
  }
}

// acc[r] += weights[r] . V over the step's tokens [from, to), at dimension d.
template <bool kFetch, int kRows, int kColumns, typename T>
[[gnu::always_inline]] inline void multiply_values(const float (*weights)[kStepTokens],
                                                   const BlockView<T>* blocks, int from, int to,
                                                   int64_t d, Vec (&acc)[kRows][kColumns],
                                                   Ahead& ahead) {
  for (int t = from; t < to;) {
    const BlockView<T>& block = blocks[t / kBlock];
    const int64_t stride = block.v_stride;
    const T* v = block.v + t % kBlock * stride + d;
    const int end = (t / kBlock + 1) * kBlock < to ? (t / kBlock + 1) * kBlock : to;
    for (; t < end; t++, v += stride) {
      if constexpr (kFetch) {
        if (t % kFetchEvery == 0) ahead.fetch();
      }
      Vec values[kColumns];
#pragma GCC unroll 4
      for (int c = 0; c < kColumns; c++) {
        values[c] = load_floats(v + c * kLanes);
      }
#pragma GCC unroll 8
      for (int r = 0; r < kRows; r++) {
        const Vec weight = broadcast(weights[r][t]);
#pragma GCC unroll 4
        for (int c = 0; c < kColumns; c++) acc[r][c] += weight * values[c];
      }
    }
  }
}

// sums[r] = sums[r] * rescale[r] + weights[r] . V over the tokens [from, to).
template <bool kFetch, int kRows, int kColumns, typename T>
[[gnu::noinline]] void add_values(const float (*weights)[kStepTokens], const BlockView<T>* blocks,
                                  int from, int to, int64_t d, const float* rescale,
                                  float (*sums)[kRowFloats], Ahead& ahead) {
  Vec acc[kRows][kColumns] = {};
  multiply_values<kFetch>(weights, blocks, from, to, d, acc, ahead);
#pragma GCC unroll 8
  for (int r = 0; r < kRows; r++) {
#pragma GCC unroll 4
    for (int c = 0; c < kColumns; c++) {
      float* sum = sums[r] + d + c * kLanes;
      store(sum, load<Vec>(sum) * rescale[r] + acc[r][c]);
    }
  }
}

// sums = sums * rescale + weights times V for kRows rows that see the same tokens of the step.
template <typename Cut, int kRows, typename T, int kCapacity>
void accumulate(TileOf<kCapacity>& tile, int row, const StepBlocks<T>& blocks, int64_t padded_dim) {
  for_runs<Cut::kVectors>(0, static_cast<int>(padded_dim / kLanes), [&](int c, auto columns) {
    add_values<Cut::kFetch, kRows, columns>(tile.weights + row, blocks, tile.begin[row],
                                            tile.end[row], c * kLanes, tile.rescale + row,
                                            tile.segment.sums + row, tile.ahead);
  });
}

// Scales, caps and masks the row's scores, -inf for tokens that it does not see; returns the
// largest of each lane.
template <bool kMasked, int kCapacity>
[[gnu::always_inline]] inline Vec finish_scores(TileOf<kCapacity>& tile, int r, const Scores& how) {
  float* scores = tile.weights[r];
  Vec largest = broadcast(-kInfinity);
#pragma GCC unroll 16
  for (int v = 0; v < kStepVectors; v++) {
    Vec score = load<Vec>(scores + v * kLanes);
    if (tile.scaled) score *= load<Vec>(tile.k_scales + v * kLanes);
    if (how.softcap != 0.0f) score = tanh(score) * how.of_tanh();
    if constexpr (kMasked) {
      const VecInt token = lane_numbers() + v * kLanes;
      const VecInt seen = (token >= tile.begin[r]) & (token < tile.end[r]);
      score = seen ? score : broadcast(-kInfinity);
    }
    if (kMasked || tile.scaled || how.softcap != 0.0f) store(scores + v * kLanes, score);
    largest = larger(score, largest);
  }
  return largest;
}

// Finishes the scores of kLanes rows from `row` and raises the segment's maxima to them, where they
// are more than kRise larger. Sets what follows from that for each row: `shift`, and `rescale`, the
// factor of its earlier sums.
template <int kCapacity>
void raise_maxima(TileOf<kCapacity>& tile, int row, const Scores& how) {
  Vec scores[kLanes];
  for (int i = 0; i < kLanes; i++) {
    if (i % kFetchEvery == 0) tile.ahead.fetch();
    const int r = row + i, count = r < tile.rows ? tile.end[r] - tile.begin[r] : 0;
    scores[i] = count == 0             ? broadcast(-kInfinity)
                : count == kStepTokens ? finish_scores<false>(tile, r, how)
                                       : finish_scores<true>(tile, r, how);
  }
  const Vec before = load<Vec>(tile.segment.max + row);
  const Vec largest = largest_lanes(scores), max = largest > before + kRise ? largest : before;
  const Vec shift = max == -kInfinity ? Vec{} : max;  // else -inf - -inf
  store(tile.segment.max + row, max);
  store(tile.shift + row, shift);
  store(tile.rescale + row, exp2(before - shift));
}

// How often fetch() is called for the maxima of so many rows.
inline int64_t fetches_of_maxima(int rows) {
  return (rows + kLanes - 1) / kLanes * (kLanes / kFetchEvery);
}

// raise_maxima() for a row that sees the whole step, of scores that are finished, whose `rescale`
// is 1: what has been computed before stays right for nearly all rows.
template <int kCapacity>
[[gnu::always_inline]] inline void raise_maximum(TileOf<kCapacity>& tile, int r) {
  const float* scores = tile.weights[r];
  Vec largest = broadcast(-kInfinity);
#pragma GCC unroll 16
  for (int v = 0; v < kStepVectors; v++) largest = larger(load<Vec>(scores + v * kLanes), largest);
  const float before = tile.segment.max[r];
  if (!any_above(largest, broadcast(before + kRise))) [[likely]]
    return;
  const float max = largest_lane(largest);
  tile.segment.max[r] = tile.shift[r] = max;
  tile.rescale[r] = exp2(broadcast(before - max))[0];
}

// Leaves the maxima of the `rows` rows from `row`, a multiple of kLanes, to raise_maximum(), if
// each has seen a score in this segment.
template <int kCapacity>
bool keep_maxima(TileOf<kCapacity>& tile, int row, int rows) {
  const VecInt none = load<Vec>(tile.segment.max + row) == -kInfinity;
  if (any_set(bit_cast<VecWord>(none & (lane_numbers() < rows)), 1)) return false;
  store(tile.rescale + row, broadcast(1.0f));
  return true;
}

// a * b rounded, whatever is added to it: at other places it is stored first.
inline Vec rounded_product(Vec a, Vec b) {
  Vec product = a * b;
  __asm__("" : "+v"(product));
  return product;
}

// Turns the first kVectors vectors of the row's scores into weights relative to the segment's
// maximum, each of which has its value's scale in it, and calls keep(v, the v'th of them).
template <int kVectors, typename Keep, int kCapacity>
[[gnu::always_inline]] inline void exponentiate(TileOf<kCapacity>& tile, int r, Keep keep) {
  const float* scores = tile.weights[r];
  const Vec shift = broadcast(tile.shift[r]);
  Vec total = load<Vec>(tile.totals[r]) * tile.rescale[r];
#pragma GCC unroll 16
  for (int v = 0; v < kVectors; v++) {
    const Vec weight = exp2(load<Vec>(scores + v * kLanes) - shift);
    keep(v, tile.scaled ? rounded_product(weight, load<Vec>(tile.v_scales + v * kLanes)) : weight);
    total += weight;
  }
  store(tile.totals[r], total);
}

// Turns scores into softmax weights. Those of a row that sees nothing are not set.
template <int kCapacity>
void soften(TileOf<kCapacity>& tile, const Scores& how) {
  for (int row = 0; row < tile.rows; row += kLanes) raise_maxima(tile, row, how);
  for (int r = 0; r < tile.rows; r++) {
    tile.ahead.fetch();
    if (tile.end[r] == tile.begin[r]) continue;
    exponentiate<kStepVectors>(
        tile, r, [&](int v, Vec weight) { store(tile.weights[r] + v * kLanes, weight); });
  }
}

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

// Adds the blocks [from, to) of a step to the rows that see them.
template <typename Cut, typename T, int kCapacity>
void add_blocks(TileOf<kCapacity>& tile, const StepBlocks<T>& blocks, int from, int to,
                const Scores& how) {
  constexpr int kBlockVectors = kBlock / kLanes, kVectors = Cut::kVectors / Cut::kSums;
  for_runs<Cut::kRows>(0, tile.rows, [&](int row, auto rows) {
    for_runs<kVectors>(from * kBlockVectors, to * kBlockVectors, [&](int v, auto vectors) {
      multiply_keys<Cut, rows, vectors>(tile.q + row, blocks, v * kLanes, how.dim,
                                        tile.weights + row, tile.ahead);
    });
  });
  soften(tile, how);
  for_runs<Cut::kRows>(0, tile.rows, [&](int row, auto rows) {
    bool same = true;
    for (int r = 1; r < rows; r++) {
      same &= tile.begin[row + r] == tile.begin[row] && tile.end[row + r] == tile.end[row];
    }
    if (same) return accumulate<Cut, rows>(tile, row, blocks, padded(how.dim));
    for (int r = row; r < row + rows; r++) {
      accumulate<Cut, 1>(tile, r, blocks, padded(how.dim));
    }
  });
}

// Adds the tokens from `position`, a multiple of kStepTokens, to the rows that see them.
template <typename Cut, typename T, typename View, int kCapacity>
void add_step(TileOf<kCapacity>& tile, int64_t position, const Scores& how, View view) {
  const auto [begin, end] = see(tile, position);
  if (begin >= end) return;
  StepBlocks<T> blocks;
  // The calls of fetch() for a whole step: beside the products, and for the rows' maxima and
  // weights.
  tile.ahead = Ahead(padded(how.dim) + fetches_of_maxima(tile.rows) + tile.rows);
  const auto [from, to] = take_blocks(tile, position, begin, end, view, blocks);
  if constexpr (!Cut::kFetch) tile.ahead = {};
  add_blocks<Cut>(tile, blocks, from, to, how);
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

// Adds to `tile.segment` what the rows see between the positions `begin` and `end`.
template <typename Cut, typename T, typename View, int kCapacity>
void walk(TileOf<kCapacity>& tile, const Scores& how, int64_t begin, int64_t end, View view) {
  walk_steps(tile, begin, end, [&](int64_t p) { add_step<Cut, T>(tile, p, how, view); });
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

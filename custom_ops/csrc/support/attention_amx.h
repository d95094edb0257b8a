// A step of attention over a cache by tiles.
#pragma once

#include "attention_steps.h"
#include "cached_tiles.h"

namespace ingot::INGOT_LEVEL {
namespace {

// Sets the queries of the tile's rows. Of rows that fill up a multiple of 16 nothing is set: what
// is computed for them is not used.
template <int kCapacity>
void lay_out_queries(TileOf<kCapacity>& tile, int64_t dim,
                     Words (*queries)[kMaxHeadDim / kDepth][kRowParts]) {
  for (int r = 0; r < tile.rows; r++) {
    memset(tile.q[r] + dim, 0, (depths(dim) * kDepth - dim) * sizeof(float));
    for (int64_t c = 0; c < depths(dim); c++) {
      const float* q = tile.q[r] + c * kDepth;
      split_neighbours<kRowParts>(load<Vec>(q), load<Vec>(q + kLanes), [&](int p, VecWord words) {
        store(queries[r / kAmxRows][c][p].rows[r % kAmxRows], words);
      });
    }
  }
}

// Turns the scores of a row, which sees some of the step, into weights of the first kDepths 32
// tokens. Calls keep(w, p, words) for their p'th parts among the w'th 32.
template <int kDepths, int kCapacity, typename Keep>
[[gnu::always_inline]] inline void soften_seen(TileOf<kCapacity>& tile, int r, Keep keep) {
  Vec even;
  exponentiate<kDepths * kDepth / kLanes>(tile, r, [&](int v, Vec weight) {
    if (v % 2 == 0) {
      if (v == 2) tile.ahead.fetch();
      even = weight;
      return;
    }
    split<kRowParts>(even, weight, [&](int p, VecWord words) { keep(v / 2, p, words); });
  });
}

// The same of any row: what it does not see has weights of 0.
template <int kDepths, int kCapacity, typename Keep>
[[gnu::always_inline]] inline void soften_row(TileOf<kCapacity>& tile, int r, Keep keep) {
  if (tile.end[r] > tile.begin[r]) return soften_seen<kDepths>(tile, r, keep);
  for (int w = 0; w < kDepths; w++) {
    for (int p = 0; p < kRowParts; p++) keep(w, p, VecWord{});
  }
}

// Of a row that sees the whole step: its scores are as they come from the products, and its maximum
// may have to rise yet.
template <int kCapacity, typename Keep>
[[gnu::noinline, gnu::cold]] void soften_far_row(TileOf<kCapacity>& tile, int r, Keep keep) {
  if (tile.scaled) finish_scores<false>(tile, r, Scores{});
  raise_maximum(tile, r);
  soften_seen<kStepTokens / kDepth>(tile, r, keep);
}

// The same, in less instructions where all scores lie so near to the maximum that it stays and
// exp2() need not limit them: nearly always.
template <bool kScaled, int kCapacity, typename Keep>
[[gnu::always_inline]] inline void soften_near_row(TileOf<kCapacity>& tile, int r, Keep keep) {
  const float* scores = tile.weights[r];
  const Vec shift = broadcast(tile.shift[r]);
  Vec x[kStepVectors], rounded[kStepVectors];
  VecWord range = {};
#pragma GCC unroll 4
  for (int v = 0; v < kStepVectors; v++) {
    Vec score = load<Vec>(scores + v * kLanes);
    if (kScaled) score = rounded_product(score, load<Vec>(tile.k_scales + v * kLanes));
    x[v] = score - shift;
    rounded[v] = round_power(x[v]);
    range |= power_range(rounded[v]);
  }
  if (any_set(range, kFarPower)) [[unlikely]]
    return soften_far_row(tile, r, keep);
  Vec total = load<Vec>(tile.totals[r]);
  const auto weight = [&](int v) {
    const Vec power = exp2_of_rounded(x[v], rounded[v]);
    total += power;
    return kScaled ? rounded_product(power, load<Vec>(tile.v_scales + v * kLanes)) : power;
  };
#pragma GCC unroll 4
  for (int v = 0; v < kStepVectors; v += 2) {
    const Vec even = weight(v), odd = weight(v + 1);
    split<kRowParts>(even, odd, [&](int p, VecWord words) { keep(v / 2, p, words); });
  }
  store(tile.totals[r], total);
}

// Of any row that sees the whole step.
template <int kCapacity, typename Keep>
[[gnu::always_inline]] inline void soften_whole_row(TileOf<kCapacity>& tile, int r, Keep keep) {
  tile.scaled ? soften_near_row<true>(tile, r, keep) : soften_near_row<false>(tile, r, keep);
}

// The softmax of the rows from `row`. whole: they see all of the step, and no score is capped.
template <int kDepths>
void soften_group(Tile& tile, int row, int rows, const Scores& how, bool whole, RowTiles& own) {
  const bool raise = whole && keep_maxima(tile, row, rows);
  tile.ahead.fetch();
  if (!raise) raise_maxima(tile, row, how);
  for (int i = 0; i < rows; i++) {
    const auto keep = [&](int w, int p, VecWord words) { store(own.weights[w][p].rows[i], words); };
    tile.ahead.fetch();
    if (i % 4 == 0) stay_awake();
    if (raise) {
      soften_whole_row(tile, row + i, keep);
    } else {
      soften_row<kDepths>(tile, row + i, keep);
    }
  }
}

// sums *= rescale of up to kAmxRows rows, where that changes anything: hardly ever.
template <int kCapacity>
void rescale_group(TileOf<kCapacity>& tile, int row, int rows, int64_t dim) {
  const VecInt changes = load<Vec>(tile.rescale + row) != 1.0f;
  if (!any_set(bit_cast<VecWord>(changes & (lane_numbers() < rows)), 1)) [[likely]]
    return;
  for (int r = row; r < row + rows; r++) {
    if (tile.rescale[r] == 1.0f) continue;
    for (int64_t d = 0; d < padded(dim); d += kLanes) {
      float* sums = tile.segment.sums[r] + d;
      store(sums, load<Vec>(sums) * tile.rescale[r]);
    }
  }
}

// Scores of 16 rows and the blocks [from, to). Calls beside() depths(dim) times for each block.
template <int kParts, typename Beside>
void multiply_queries(const Words (*queries)[kRowParts], const Words (*keys)[kParts], int from,
                      int to, int64_t dim, float* scores, Beside& beside) {
  for_runs<kSumTiles>(from, to, [&](int b, auto blocks) {
    multiply<blocks, false>(queries, keys + b, kStepBlocks, depths(dim), scores + b * kBlock,
                            kStepTokens, beside);
  });
}

// The 32 tokens that hold the blocks [from, to).
inline std::pair<int, int> depths_between(int from, int to) { return {from / 2, (to + 1) / 2}; }

// sums (+)= weights of 16 rows times V of the blocks [from, to). Calls beside() columns_of(dim)
// times for each 32 tokens.
template <bool kAdd, int kParts, typename Weights, typename Beside>
void multiply_weights(Weights weights, const Words (*values)[kParts], int from, int to, int64_t dim,
                      float* sums, Beside& beside) {
  const auto [first, end] = depths_between(from, to);
  const int64_t columns = columns_of(dim);
  for_runs<kSumTiles>(0, static_cast<int>(columns), [&](int c, auto run) {
    multiply<run, kAdd>(from_depth(weights, first), values + first * columns + c, columns,
                        end - first, sums + c * kAmxWords, kRowFloats, beside);
  });
}

// The scores of the group of rows from `row`.
template <int kParts>
void score_group(Tile& tile, int row, int from, int to, int64_t dim, const RowTiles& own,
                 const StepTiles<kParts>& step) {
  const auto fetch = [&] { tile.ahead.fetch(); };
  multiply_queries(own.queries[row / kAmxRows], step.keys, from, to, dim, tile.weights[row], fetch);
}

// Adds the blocks [from, to) of a step, laid out, to the rows that see them. The first rows' scores
// are there; the next rows' begin before these rows' softmax: the tiles multiply beside it.
template <int kParts>
void add_tiles(Tile& tile, int from, int to, const Scores& how, bool whole, RowTiles& own,
               const StepTiles<kParts>& step) {
  const auto fetch = [&] { tile.ahead.fetch(); };
  for (int row = 0; row < tile.rows; row += kAmxRows) {
    const int rows = tile.rows - row < kAmxRows ? tile.rows - row : kAmxRows;
    const int next = row + kAmxRows;
    if (next < tile.rows) score_group(tile, next, from, to, how.dim, own, step);
    if (to * kBlock > kDepth) {
      soften_group<kStepTokens / kDepth>(tile, row, rows, how, whole, own);
    } else {
      soften_group<1>(tile, row, rows, how, whole, own);
    }
    tile.ahead.fetch();
    rescale_group(tile, row, rows, how.dim);
    multiply_weights<true>(own.weights, step.values, from, to, how.dim, tile.segment.sums[row],
                           fetch);
  }
}

// Rows that see one of `tokens`, or those that see none of them, see nothing of this step.
template <int kCapacity>
void hide(TileOf<kCapacity>& tile, uint64_t tokens, bool that_see) {
  for (int r = 0; r < tile.rows; r++) {
    const bool sees = (bits_between(tile.begin[r], tile.end[r]) & tokens) != 0;
    if (sees == that_see) tile.begin[r] = tile.end[r] = 0;
  }
}

// Lays out the tokens of a step whose bits are set in `seen` and sets the first rows' scores. False
// if there is infinity or NaN among them.
template <typename T, int kParts>
bool lay_out(Tile& tile, const StepBlocks<T>& blocks, int from, int to, const Scores& how,
             uint64_t seen, const RowTiles& own, const StepTiles<kParts>& step) {
  const bool whole = seen == ~uint64_t{0};
  const auto keys = whole ? lay_out_keys<false, T, kParts> : lay_out_keys<true, T, kParts>;
  const auto values = whole ? lay_out_values<false, T, kParts> : lay_out_values<true, T, kParts>;
  Halves largest = keys(blocks, from, to, how.dim, seen, step, tile.ahead);
  score_group(tile, 0, from, to, how.dim, own, step);
  const Halves others = values(blocks, from, to, how.dim, seen, step, tile.ahead);
  largest = largest > others ? largest : others;
  if (tile.scaled) mask_scales(tile, seen, largest);
  return all_finite(largest);
}

// How often fetch() is called in a step at least: while keys are laid out and multiplied, values
// laid out, weights computed and multiplied; once between these, twice while the next step begins.
inline int64_t shares(int rows, int64_t dim) {
  const int64_t keys = (1 + 1) * kStepBlocks * depths(dim), values = kBlock / 2;
  const int64_t weights = 1 + (rows < kAmxRows ? rows : kAmxRows);
  return keys + values + weights + 1 + 2 * columns_of(dim) + 2;
}

// add_step by tiles. A product of tiles has every row meet every token, and what a row does not
// see must not reach it even if it is infinite or NaN. Such tokens are left out; the rows that do
// see one take the step in float32 arithmetic.
template <typename T, int kParts, typename View>
void add_step_by_tiles(Tile& tile, int64_t position, const Scores& how, View view, RowTiles& own,
                       const StepTiles<kParts>& step) {
  tile.ahead.fetch();
  const auto [begin, end] = see(tile, position);
  if (begin >= end) return;
  StepBlocks<T> blocks;
  tile.ahead.fetch();
  tile.ahead = Ahead(shares(tile.rows, how.dim));
  const auto [from, to] = take_blocks(tile, position, begin, end, view, blocks);
  const uint64_t seen = bits_between(begin, end);
  const bool whole = all_see(tile, position) && how.softcap == 0.0f;
  if (lay_out<T>(tile, blocks, from, to, how, seen, own, step)) [[likely]]
    return add_tiles(tile, from, to, how, whole, own, step);
  const uint64_t bad = not_finite(blocks, from, to, how.dim);
  lay_out<T>(tile, blocks, from, to, how, seen & ~bad, own, step);
  hide(tile, bad, true);
  add_tiles(tile, from, to, how, false, own, step);
  see(tile, position);
  hide(tile, bad, false);
  take_scales(tile, blocks, from, to);
  add_blocks<ManyRows>(tile, blocks, from, to, how);
}

// Calls add(position) as walk_steps does, with tile registers for the rows of `tile`.
template <typename Add>
void walk_with_tiles(const Tile& tile, int64_t begin, int64_t end, Add add) {
  const auto rows = static_cast<uint8_t>(tile.rows < kAmxRows ? tile.rows : kAmxRows);
  const TileShape shape = {rows};
  const Tiles tiles({shape, shape, shape, shape, shape, shape, shape, {}});
  walk_steps(tile, begin, end, add);
}

// walk() by tiles; `own` holds the tile's queries.
template <typename T, int kParts, typename View>
void walk_by_tiles(Tile& tile, const Scores& how, int64_t begin, int64_t end, View view,
                   RowTiles& own, CachedTiles<kParts>& cached) {
  walk_with_tiles(tile, begin, end, [&](int64_t p) {
    add_step_by_tiles<T>(tile, p, how, view, own, cached.view(tile.rows));
  });
}

}  // namespace
}  // namespace ingot::INGOT_LEVEL

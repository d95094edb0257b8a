// Online softmax: a step's scores of a tile's rows become weights, relative to the largest score
// that a row has seen in the segment (attention_tile.h).
#pragma once

#include "attention_tile.h"

namespace ingot::INGOT_LEVEL {
namespace {

// A row's sums stay relative to what they are until a score is 2^8 times that: after a segment's
// first step they are hardly ever rescaled, and float32 tells the larger weights as well.
constexpr float kRise = 8.0f;

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

}  // namespace
}  // namespace ingot::INGOT_LEVEL

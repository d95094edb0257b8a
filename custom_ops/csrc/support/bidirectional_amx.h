// Attention in which every token of a sequence sees every other, by tiles (amx.h). 16 rows of a
// query head meet up to 512 keys at once: their scores are few enough for the nearest caches, so
// their largest is known before the first weight, and the sums stay in tiles from the first value
// to the last. Only longer sequences take the online softmax's steps, of 512 tokens each.
#pragma once

#include <vector>

#include "attention_amx.h"
#include "kept.h"

namespace ingot::INGOT_LEVEL {
namespace {

struct BidirectionalCall : RaggedCall {
  float scale;
};

// Where a word's two tokens lie among 32: side by side for to_pairs(), which makes words of
// neighbours, else 16 apart, as the words of two vectors' lanes. `row` is the word's number.
template <int kParts>
struct TokenPair {
  int low, high;
  explicit TokenPair(int row)
      : low(kParts == 1 ? 2 * row : row), high(kParts == 1 ? 2 * row + 1 : row + kAmxRows) {}
};

// The words of the weights of 32 tokens, part by part.
template <int kParts, typename Keep>
[[gnu::always_inline]] inline void split_weights(Vec first, Vec last, Keep keep) {
  if constexpr (kParts == 1) {
    keep(0, to_pairs(first, last));
  } else {
    split<kParts>(first, last, keep);
  }
}

// The keys and values of one KV head of one sequence, as tiles: keys [depths(dim)][blocks], values
// [blocks / 2, rounded up][columns_of(dim)].
template <int kParts>
class SequenceTiles {
 public:
  SequenceTiles(const BidirectionalCall& call, int64_t sequence, int64_t kv_head)
      : dim_(call.dim), first_(call.query_start[sequence]), count_(call.new_tokens(sequence)) {
    const int64_t value_depths = depths(count_);
    const int64_t tiles = depths(dim_) * blocks() + value_depths * columns_of(dim_);
    keys_ = reinterpret_cast<Words(*)[kParts]>(kept<Parts>(tiles)->tiles);
    values_ = keys_ + depths(dim_) * blocks();
    for (int64_t b = 0; b < blocks(); b++) lay_out_keys(call.k, kv_head, b);
    for (int64_t w = 0; w < value_depths; w++) lay_out_values(call.v, kv_head, w);
  }

  bool finite() const { return all_finite(largest_); }
  int64_t blocks() const { return (count_ + kBlock - 1) / kBlock; }
  // Of depth 0; those of the next depth lie blocks() further.
  const Words (*keys(int64_t block) const)[kParts] { return keys_ + block; }
  const Words (*values(int64_t depth) const)[kParts] { return values_ + depth * columns_of(dim_); }

 private:
  struct Parts {
    Words tiles[kParts];
  };

  // The row of a token, with zeros behind it up to whole words; zeros for one beyond the last.
  const float* padded_row(const Heads& from, int64_t head, int64_t token, float* space) const {
    if (token < count_ && dim_ % kDepth == 0) return from.at(first_ + token, head);
    memset(space, 0, depths(dim_) * kDepth * sizeof(float));
    if (token < count_) memcpy(space, from.at(first_ + token, head), dim_ * sizeof(float));
    return space;
  }

  // A word of a key is one of its rows of 16 words: transposed, the 16 keys of a block are tiles.
  void lay_out_keys(const Heads& k, int64_t head, int64_t block) {
    alignas(64) float space[kBlock][kMaxHeadDim];
    const float* keys[kBlock];
    for (int t = 0; t < kBlock; t++) {
      keys[t] = padded_row(k, head, block * kBlock + t, space[t]);
    }
    for (int64_t c = 0; c < depths(dim_); c++) {
      Vec rows[kParts][kAmxRows];
#pragma GCC unroll 16
      for (int t = 0; t < kBlock; t++) {
        const float* from = keys[t] + c * kDepth;
        split_neighbours<kParts>(load<Vec>(from), load<Vec>(from + kLanes),
                                 [&](int p, VecWord words) {
                                   if (p == 0) raise_halves(largest_, words);
                                   rows[p][t] = bit_cast<Vec>(words);
                                 });
      }
      for (int p = 0; p < kParts; p++) {
        transpose(rows[p]);
        Words& to = keys_[c * blocks() + block][p];
#pragma GCC unroll 16
        for (int i = 0; i < kAmxRows; i++) store(to.rows[i], rows[p][i]);
      }
    }
  }

  void lay_out_values(const Heads& v, int64_t head, int64_t depth) {
    alignas(64) float low_space[kMaxHeadDim], high_space[kMaxHeadDim];
    Words(*to)[kParts] = values_ + depth * columns_of(dim_);
    for (int i = 0; i < kAmxRows; i++) {
      const TokenPair<kParts> tokens(i);
      const float* low = padded_row(v, head, depth * kDepth + tokens.low, low_space);
      const float* high = padded_row(v, head, depth * kDepth + tokens.high, high_space);
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
  Words (*keys_)[kParts];
  Words (*values_)[kParts];
  Halves largest_ = {};
};

// What a thread computes next, fetched into its L2 cache beside what it computes now: a head's rows
// lie far from one another, where the hardware does not guess the next.
class NextHead {
 public:
  // Of no sequence: nothing.
  NextHead(const BidirectionalCall& call, int64_t sequence, int64_t kv_head)
      : call_(call), kv_head_(kv_head) {
    if (sequence >= call.sequences) return;
    first_ = call.query_start[sequence];
    count_ = call.new_tokens(sequence);
  }

  // The rows of the token'th token, of the g'th query head of the group. Always inlined: GCC 12
  // leaves out calls of a function that only fetches.
  [[gnu::always_inline]] void fetch(int64_t token, int64_t g) const {
    if (token >= count_) return;
    const int64_t head = kv_head_ * call_.group() + g;
    const float* q = call_.q.at(first_ + token, head);
    const float* out = call_.out + ((first_ + token) * call_.query_heads + head) * call_.dim;
    for (int64_t d = 0; d < call_.dim; d += kLine) {
      __builtin_prefetch(q + d, 0, 2);
      __builtin_prefetch(out + d, 1, 2);
    }
    if (g != 0) return;
    const float* k = call_.k.at(first_ + token, kv_head_);
    const float* v = call_.v.at(first_ + token, kv_head_);
    for (int64_t d = 0; d < call_.dim; d += kLine) {
      __builtin_prefetch(k + d, 0, 2);
      __builtin_prefetch(v + d, 0, 2);
    }
  }

 private:
  static constexpr int64_t kLine = 16;  // floats

  const BidirectionalCall& call_;
  int64_t kv_head_, first_ = 0, count_ = 0;
};

// 16 rows of a query head, those of the tokens from `first` on.
template <int kParts>
class RowGroup {
 public:
  RowGroup(const BidirectionalCall& call, int64_t sequence, const NextHead& next)
      : call_(call),
        start_(call.query_start[sequence]),
        count_(call.new_tokens(sequence)),
        next_(next) {}

  void attend(const SequenceTiles<kParts>& tiles, int64_t head, int64_t first) {
    head_ = head;
    first_ = first;
    rows_ = static_cast<int>(count_ - first < kAmxRows ? count_ - first : kAmxRows);
    begin();
    for (int64_t t = 0; t < count_; t += kSegmentTokens) {
      add(tiles, t, static_cast<int>(count_ - t < kSegmentTokens ? count_ - t : kSegmentTokens));
    }
    finish();
  }

 private:
  // Rows beyond the last one are not set: what is computed for them is not used.
  void begin() {
    const float factor = Scores{call_.dim, call_.scale, 0.0f}.of_query();
    alignas(64) float q[kMaxHeadDim] = {};
    for (int r = 0; r < rows_; r++) {
      const float* from = call_.q.at(start_ + first_ + r, head_);
      for (int64_t d = 0; d < call_.dim; d++) q[d] = from[d] * factor;
      for (int64_t c = 0; c < depths(call_.dim); c++) {
        split_neighbours<kParts>(
            load<Vec>(q + c * kDepth), load<Vec>(q + c * kDepth + kLanes),
            [&](int p, VecWord words) { store(queries_[c][p].rows[r], words); });
      }
    }
    for (int r = 0; r < kAmxRows; r++) {
      max_[r] = -kInfinity;
      memset(totals_[r], 0, sizeof(totals_[r]));
      memset(sums_[r], 0, padded(call_.dim) * sizeof(float));
    }
  }

  // Adds `tokens` tokens from `first`.
  void add(const SequenceTiles<kParts>& tiles, int64_t first, int tokens) {
    const int blocks = (tokens + kBlock - 1) / kBlock;
    const auto nothing = [] {};  // is done between products
    for_runs<kSumTiles>(0, blocks, [&](int b, auto run) {
      multiply<run, false>(queries_, tiles.keys(first / kBlock + b), tiles.blocks(),
                           depths(call_.dim), scores_[0] + b * kBlock, kStride, nothing);
    });
    raise_maxima(tokens);
    if (first != 0) rescale();
    for (int r = 0; r < rows_; r++) {
      next_.fetch(first_ + r, head_ % call_.group());
      soften(r, tokens);
    }
    const int64_t columns = columns_of(call_.dim);
    for_runs<kSumTiles>(0, static_cast<int>(columns), [&](int c, auto run) {
      multiply<run, true>(weights_, tiles.values(first / kDepth) + c, columns, depths(tokens),
                          sums_[0] + c * kAmxWords, kRowFloats, nothing);
    });
  }

  // Raises the maxima to the scores; those behind the last token, up to whole words, become -inf.
  void raise_maxima(int tokens) {
    const int end = tokens / kDepth * kDepth;
    Vec largest[kLanes];
    for (int r = 0; r < kAmxRows; r++) {
      float* scores = scores_[r];
      Vec even = broadcast(-kInfinity), odd = even;
      for (int t = 0; t < end; t += kDepth) {
        even = larger(load<Vec>(scores + t), even);
        odd = larger(load<Vec>(scores + t + kLanes), odd);
      }
      for (int t = end; t < tokens; t += kDepth) {
        even = larger(hide(scores + t, tokens - t), even);
        odd = larger(hide(scores + t + kLanes, tokens - t - kLanes), odd);
      }
      largest[r] = larger(even, odd);
    }
    const Vec before = load<Vec>(max_), max = larger(largest_lanes(largest), before);
    const Vec shift = max == -kInfinity ? Vec{} : max;  // else -inf - -inf
    store(max_, max);
    store(shift_, shift);
    store(rescale_, exp2(before - shift));
  }

  // Makes scores of tokens that are not there -inf, and returns the vector of them.
  static Vec hide(float* scores, int tokens) {
    const Vec score = lane_numbers() < tokens ? load<Vec>(scores) : broadcast(-kInfinity);
    store(scores, score);
    return score;
  }

  void rescale() {
    for (int r = 0; r < rows_; r++) {
      store(totals_[r], load<Vec>(totals_[r]) * rescale_[r]);
      for (int64_t d = 0; d < padded(call_.dim); d += kLanes) {
        store(sums_[r] + d, load<Vec>(sums_[r] + d) * rescale_[r]);
      }
    }
  }

  // Turns a row's scores into weights, as tiles.
  void soften(int r, int tokens) {
    const Vec shift = broadcast(shift_[r]);
    Vec total = load<Vec>(totals_[r]);
    for (int w = 0; w < depths(tokens); w++) {
      const float* scores = scores_[r] + w * kDepth;
      const Vec first = exp2(load<Vec>(scores) - shift);
      const Vec last = exp2(load<Vec>(scores + kLanes) - shift);
      total += first + last;
      split_weights<kParts>(first, last,
                            [&](int p, VecWord words) { store(weights_[w][p].rows[r], words); });
    }
    store(totals_[r], total);
  }

  void finish() const {
    for (int r = 0; r < rows_; r++) {
      const float factor = 1.0f / sum_of_lanes(load<Vec>(totals_[r]));
      float* out = call_.out + ((start_ + first_ + r) * call_.query_heads + head_) * call_.dim;
      for (int64_t d = 0; d < call_.dim; d++) out[d] = sums_[r][d] * factor;
    }
  }

  static constexpr int kStride = kSegmentTokens + kLanes;  // rows must not share cache sets

  const BidirectionalCall& call_;
  int64_t start_, count_;
  const NextHead& next_;
  int64_t head_ = 0, first_ = 0;
  int rows_ = 0;
  Words queries_[kMaxHeadDim / kDepth][kParts];
  Words weights_[kSegmentTokens / kDepth][kParts];
  alignas(64) float scores_[kAmxRows][kStride];
  alignas(64) float sums_[kAmxRows][kRowFloats];
  alignas(64) float totals_[kAmxRows][kLanes];  // of the weights, lane by lane
  alignas(64) float max_[kAmxRows];
  alignas(64) float shift_[kAmxRows];    // max, or 0 where that is -inf
  alignas(64) float rescale_[kAmxRows];  // what the sums of earlier segments are multiplied by
};

// False if that is not for tiles: a product of tiles is NaN where infinity meets what a part of 0
// stands for.
template <int kParts>
bool attend_by_tiles(const BidirectionalCall& call, int64_t sequence, int64_t kv_head,
                     const NextHead& next) {
  const SequenceTiles<kParts> tiles(call, sequence, kv_head);
  if (!tiles.finite()) return false;
  const Tiles registers;
  RowGroup<kParts> rows(call, sequence, next);
  for (int64_t g = 0; g < call.group(); g++) {
    for (int64_t first = 0; first < call.new_tokens(sequence); first += kAmxRows) {
      rows.attend(tiles, kv_head * call.group() + g, first);
    }
  }
  return true;
}

}  // namespace
}  // namespace ingot::INGOT_LEVEL

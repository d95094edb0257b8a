// Attention in which every token of a sequence sees every other, by tiles (amx.h). 16 rows of a
// query head meet up to 512 keys at once: their scores are few enough for the nearest caches, so
// their largest is known before the first weight, and the sums stay in tiles from the first value
// to the last. Only longer sequences take the online softmax's steps, of 512 tokens each.
#pragma once

#include <vector>

#include "attention_steps.h"
#include "bfloat_words.h"
#include "kept.h"
#include "tile_products.h"

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

// A row with zeros behind it up to whole words, in `space` where it is not so already; zeros for
// null.
inline const float* padded_row(const float* row, int64_t dim, float* space) {
  if (row != nullptr && dim % kDepth == 0) return row;
  memset(space, 0, static_cast<size_t>(depths(dim) * kDepth) * sizeof(float));
  if (row != nullptr) memcpy(space, row, static_cast<size_t>(dim) * sizeof(float));
  return space;
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

  // The row of a token; zeros for one beyond the last.
  const float* row(const Heads& from, int64_t head, int64_t token, float* space) const {
    const float* at = token < count_ ? from.at(first_ + token, head) : nullptr;
    return padded_row(at, dim_, space);
  }

  // A word of a key is one of its rows of 16 words: transposed, the 16 keys of a block are tiles.
  void lay_out_keys(const Heads& k, int64_t head, int64_t block) {
    stay_awake();
    alignas(64) float space[kBlock][kMaxHeadDim];
    const float* keys[kBlock];
    for (int t = 0; t < kBlock; t++) {
      keys[t] = row(k, head, block * kBlock + t, space[t]);
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
    stay_awake();
    for (int i = 0; i < kAmxRows; i++) {
      const TokenPair<kParts> tokens(i);
      const float* low = row(v, head, depth * kDepth + tokens.low, low_space);
      const float* high = row(v, head, depth * kDepth + tokens.high, high_space);
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

// The rows of the query heads that share a KV head, 16 of one head after the other.
//
// Scores of the next 16 are multiplied before the weights of these: what vector registers wrote is
// in the cache before tiles read it, and the other way round, and neither waits for the other.
template <int kParts>
class RowGroups {
 public:
  RowGroups(const BidirectionalCall& call, int64_t sequence, int64_t kv_head,
            const SequenceTiles<kParts>& tiles, const NextHead& next)
      : call_(call),
        tiles_(tiles),
        next_(next),
        start_(call.query_start[sequence]),
        count_(call.new_tokens(sequence)),
        first_head_(kv_head * call.group()) {}

  void attend() {
    const int64_t groups = (count_ + kAmxRows - 1) / kAmxRows, all = call_.group() * groups;
    if (all == 0) return;
    const auto group = [&](int64_t i) {
      const int64_t first = i % groups * kAmxRows, left = count_ - first;
      return Group{first_head_ + i / groups, first,
                   static_cast<int>(left < kAmxRows ? left : kAmxRows)};
    };
    take_queries(group(0));
    score(0);
    for (int64_t i = 0; i < all; i++) {
      const Group now = group(i);
      store(max_, broadcast(-kInfinity));
      for (int64_t t = 0; t < count_; t += kSegmentTokens) {
        const bool last = t + kSegmentTokens >= count_, more = !last || i + 1 < all;
        if (last && more) take_queries(group(i + 1));
        soften(now, t);
        if (more) score(last ? 0 : t + kSegmentTokens);
        add_values(t);
      }
      finish(now);
    }
  }

 private:
  // Of a query head the tokens from `first` on.
  struct Group {
    int64_t head, first;
    int rows;
  };

  int tokens_from(int64_t first) const {
    return static_cast<int>(count_ - first < kSegmentTokens ? count_ - first : kSegmentTokens);
  }

  // Rows beyond the last one are not set: what is computed for them is not used.
  void take_queries(const Group& group) {
    const float factor = Scores{call_.dim, call_.scale, 0.0f}.of_query();
    alignas(64) float space[kMaxHeadDim];
    for (int r = 0; r < group.rows; r++) {
      const float* q =
          padded_row(call_.q.at(start_ + group.first + r, group.head), call_.dim, space);
      for (int64_t c = 0; c < depths(call_.dim); c++, q += kDepth) {
        split_neighbours<kParts>(
            load<Vec>(q) * factor, load<Vec>(q + kLanes) * factor,
            [&](int p, VecWord words) { store(queries_[c][p].rows[r], words); });
      }
    }
  }

  // The queries' scores of a segment, that from `first` on.
  void score(int64_t first) {
    const int blocks = (tokens_from(first) + kBlock - 1) / kBlock;
    const auto nothing = [] {};  // is done between products
    for_runs<kSumTiles>(0, blocks, [&](int b, auto run) {
      multiply<run, false>(queries_, tiles_.keys(first / kBlock + b), tiles_.blocks(),
                           depths(call_.dim), scores_[0] + b * kBlock, kStride, nothing);
    });
  }

  // Turns a segment's scores into weights, as tiles.
  void soften(const Group& group, int64_t first) {
    const int tokens = tokens_from(first);
    raise_maxima(tokens);
    if (first != 0) rescale(group.rows);
    for (int r = 0; r < group.rows; r++) {
      if (r % (kAmxRows / 2) == 0) stay_awake();
      next_.fetch(group.first + r, group.head - first_head_);
      const Vec total = soften_row(r, tokens);
      store(totals_[r], first == 0 ? total : load<Vec>(totals_[r]) + total);
    }
  }

  // sums += weights times the segment's values; the first segment begins them.
  void add_values(int64_t first) {
    const int64_t columns = columns_of(call_.dim);
    const auto nothing = [] {};
    const auto add = [&](auto begun) {
      for_runs<kSumTiles>(0, static_cast<int>(columns), [&](int c, auto run) {
        multiply<run, begun>(weights_, tiles_.values(first / kDepth) + c, columns,
                             depths(tokens_from(first)), sums_[0] + c * kAmxWords, kRowFloats,
                             nothing);
      });
    };
    first == 0 ? add(std::false_type()) : add(std::true_type());
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

  void rescale(int rows) {
    for (int r = 0; r < rows; r++) {
      store(totals_[r], load<Vec>(totals_[r]) * rescale_[r]);
      for (int64_t d = 0; d < padded(call_.dim); d += kLanes) {
        store(sums_[r] + d, load<Vec>(sums_[r] + d) * rescale_[r]);
      }
    }
  }

  // The same of a row. Returns the weights' total, lane by lane.
  Vec soften_row(int r, int tokens) {
    const Vec shift = broadcast(shift_[r]);
    Vec total = {};
    for (int w = 0; w < depths(tokens); w++) {
      const float* scores = scores_[r] + w * kDepth;
      const Vec first = exp2(load<Vec>(scores) - shift);
      const Vec last = exp2(load<Vec>(scores + kLanes) - shift);
      total += first + last;
      split_weights<kParts>(first, last,
                            [&](int p, VecWord words) { store(weights_[w][p].rows[r], words); });
    }
    return total;
  }

  void finish(const Group& group) {
    alignas(64) float factors[kLanes];
    Vec totals[kLanes];
    for (int r = 0; r < kAmxRows; r++) totals[r] = load<Vec>(totals_[r]);
    store(factors, 1.0f / sums_of_lanes(totals));
    for (int r = 0; r < group.rows; r++) {
      const int64_t row = (start_ + group.first + r) * call_.query_heads + group.head;
      float* out = call_.out + row * call_.dim;
      int64_t d = 0;
      for (; d + kLanes <= call_.dim; d += kLanes) {
        store(out + d, load<Vec>(sums_[r] + d) * factors[r]);
      }
      for (; d < call_.dim; d++) out[d] = sums_[r][d] * factors[r];
    }
  }

  static constexpr int kStride = kSegmentTokens + kLanes;  // rows must not share cache sets

  const BidirectionalCall& call_;
  const SequenceTiles<kParts>& tiles_;
  const NextHead& next_;
  int64_t start_, count_, first_head_;
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
  const Tiles registers;
  const SequenceTiles<kParts> tiles(call, sequence, kv_head);
  if (!tiles.finite()) return false;
  RowGroups<kParts>(call, sequence, kv_head, tiles, next).attend();
  return true;
}

}  // namespace
}  // namespace ingot::INGOT_LEVEL

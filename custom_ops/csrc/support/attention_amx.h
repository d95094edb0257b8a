// A step of attention by tiles (amx.h). A float32 is the sum of three bfloat16, 8 bits of its
// significand each (Henry, Tang and Heinecke, arXiv:1904.06376): queries and weights are split so,
// and attention over float32 keys and values is as exact as in float32. The elements of a bfloat16
// cache and int8 codes are one bfloat16, those of a float16 cache two, rounded from 24 bits to 8 or
// 11 when they were written: the queries and weights that meet them are two, rounded to 16 bits.
//
// The keys and values of a step are laid out once for all rows: words of two values that meet the
// words of a row. A word of K holds the dimensions 2 i and 2 i + 1, which lie side by side in a
// block, a word of V the tokens i and i + 16 of 32: those of a row are lane i of two vectors.
#pragma once

#include "amx.h"
#include "attention_tile.h"
#include "dot_bf16.h"
#include "parts.h"

namespace ingot::INGOT_LEVEL {
namespace {

inline constexpr int kDepth = 2 * kAmxWords;  // terms of one product of tiles
inline constexpr int kRowParts = 2;           // of queries and weights that meet a cache

// float32 would take three parts, and as many of what meets them.
template <typename T>
inline constexpr bool kByTiles = kHasAmx && !std::is_same_v<T, float>;
template <typename T>
inline constexpr int kCacheParts = std::is_same_v<T, Half> ? 2 : 1;

// What fills a tile register.
struct Words {
  alignas(64) uint32_t rows[kAmxRows][kAmxWords];
};

inline int64_t depths(int64_t terms) { return (terms + kDepth - 1) / kDepth; }
inline int64_t columns_of(int64_t dim) { return (dim + kAmxWords - 1) / kAmxWords; }

// The rows' side of a step's products, in kParts parts: kExactParts, kRowParts, or 1 of what is
// rounded to bfloat16.
template <int kParts>
struct RowTiles {
  Words queries[kTileRows / kAmxRows][kMaxHeadDim / kDepth][kParts];
  Words weights[kStepTokens / kDepth][kParts];  // of 16 rows
};

// The other side: [depths(dim)][kStepBlocks] of keys and [kStepTokens / kDepth][columns_of(dim)]
// of values, in kParts parts.
template <int kParts>
struct StepTiles {
  Words (*keys)[kParts];
  Words (*values)[kParts];
};

inline int64_t key_tiles(int64_t dim) { return depths(dim) * kStepBlocks; }
inline int64_t value_tiles(int64_t dim) { return kStepTokens / kDepth * columns_of(dim); }

// Those of a cache.
template <int kParts>
struct CachedTiles {
  Words keys[kMaxHeadDim / kDepth * kStepBlocks][kParts];
  Words values[kStepTokens / kDepth * kMaxHeadDim / kAmxWords][kParts];

  // Up to 16 rows meet the keys once, before the values are laid out: both fit one place, which
  // leaves the L1 cache to what comes from memory.
  StepTiles<kParts> view(int rows) { return {keys, rows <= kAmxRows ? keys : values}; }
};

// high_halves() of `low` and `high`, in one instruction that does not need the port of those that
// shift and multiply.
inline VecWord shuffle_high_halves(VecWord low, VecWord high) {
#if defined(__AVX512BW__)
  constexpr __mmask64 kLowHalves = 0x3333333333333333;  // the bytes of low halves
  const auto upper = _mm512_set4_epi32(0x00000f0e, 0x00000b0a, 0x00000706, 0x00000302);
  return bit_cast<VecWord>(
      _mm512_mask_shuffle_epi8(bit_cast<__m512i>(high), kLowHalves, bit_cast<__m512i>(low), upper));
#else
  return high_halves(low, high);
#endif
}

// The first parts of low and high, cut off, as the low and high halves of words; they keep what is
// left: nothing of infinity.
inline VecWord take_words(Vec& low, Vec& high) {
  const auto low_bits = bit_cast<VecWord>(low), high_bits = bit_cast<VecWord>(high);
  low = without_part(low, low_bits);
  high = without_part(high, high_bits);
  return shuffle_high_halves(low_bits, high_bits);
}

// low and high rounded to bfloat16, as the low and high halves of words.
inline VecWord round_words(Vec low, Vec high) {
  using Bits = uint16_t __attribute__((vector_size(2 * kLanes * sizeof(uint16_t))));
  Bits order;
  for (int i = 0; i < 2 * kLanes; i++) order[i] = static_cast<uint16_t>(i / 2 + i % 2 * kLanes);
  return bit_cast<VecWord>(__builtin_shuffle(bit_cast<Bits>(to_pairs(low, high)), order));
}

// The last of kParts parts, of what the others have left: the third holds all of it, a second one
// is rounded.
template <int kParts>
inline VecWord last_words(Vec low, Vec high) {
  if constexpr (kParts < kExactParts) {
    return shuffle_high_halves(rounded_bits(low), rounded_bits(high));
  } else {
    return take_words(low, high);
  }
}

// Calls keep(p, the p'th parts of low and high, as words), the largest first.
template <int kParts, typename Keep>
[[gnu::always_inline]] inline void split(Vec low, Vec high, Keep keep) {
  if constexpr (kParts == 1) {
    keep(0, round_words(low, high));
  } else {
#pragma GCC unroll 2
    for (int p = 0; p < kParts - 1; p++) keep(p, take_words(low, high));
    keep(kParts - 1, last_words<kParts>(low, high));
  }
}

// The values with even and with odd numbers among those of `first` and `last`.
inline std::pair<Vec, Vec> even_and_odd(Vec first, Vec last) {
  const VecInt even = 2 * lane_numbers();
  return {__builtin_shuffle(first, last, even), __builtin_shuffle(first, last, even + 1)};
}

// The same of 32 values that lie side by side, as words of two neighbours.
template <int kParts, typename Keep>
[[gnu::always_inline]] inline void split_neighbours(Vec first, Vec last, Keep keep) {
  if constexpr (kParts == 1) {
    keep(0, to_pairs(first, last));
  } else {
    auto [low, high] = even_and_odd(first, last);
#pragma GCC unroll 2
    for (int p = 0; p < kParts - 1; p++) {
      keep(p, take_words(low, high));
      low = low == low ? low : Vec{};  // infinity leaves nothing
      high = high == high ? high : Vec{};
    }
    keep(kParts - 1, last_words<kParts>(low, high));
  }
}

// Words of two values, part by part.
template <int kParts>
struct Parts {
  VecWord words[kParts];
};

template <int kParts, typename T>
inline Parts<kParts> load_words(const T* low, const T* high) {
  Vec low_values = load_floats(low), high_values = load_floats(high);
  Parts<kParts> parts;
  for (VecWord& words : parts.words) words = take_words(low_values, high_values);
  return parts;
}
template <int kParts>
inline Parts<kParts> load_words(const Bfloat* low, const Bfloat* high) {
  static_assert(kParts == 1);
  return {load_bits(low) | load_bits(high) << 16};
}

using Halves = uint16_t __attribute__((vector_size(kLanes * sizeof(uint32_t))));

// Words of a row of kBlock values and of the one behind it.
template <int kParts, typename T>
inline Parts<kParts> load_rows(const T* rows) {
  return load_words<kParts>(rows, rows + kBlock);
}
template <int kParts>
inline Parts<kParts> load_rows(const Bfloat* rows) {
  static_assert(kParts == 1);
  Halves order;
  for (int i = 0; i < 2 * kLanes; i++) order[i] = static_cast<uint16_t>(i / 2 + i % 2 * kLanes);
  return {bit_cast<VecWord>(__builtin_shuffle(load<Halves>(rows), order))};
}

// Words of 2 kLanes values of two rows: of the first half of them, and of the last.
template <int kParts, typename T>
inline std::pair<Parts<kParts>, Parts<kParts>> load_word_pair(const T* low, const T* high) {
  return {load_words<kParts>(low, high), load_words<kParts>(low + kLanes, high + kLanes)};
}
#if defined(__AVX512F__)
// Instructions interleave within 128 bits, so what is to be there comes there first.
template <int kParts>
inline std::pair<Parts<kParts>, Parts<kParts>> load_word_pair(const Bfloat* low,
                                                              const Bfloat* high) {
  static_assert(kParts == 1);
  using Quads = uint64_t __attribute__((vector_size(kLanes * sizeof(uint32_t))));
  constexpr Quads kOrder = {0, 4, 1, 5, 2, 6, 3, 7};
  const auto a = bit_cast<__m512i>(__builtin_shuffle(load<Quads>(low), kOrder));
  const auto b = bit_cast<__m512i>(__builtin_shuffle(load<Quads>(high), kOrder));
  return {Parts<1>{bit_cast<VecWord>(_mm512_unpacklo_epi16(a, b))},
          Parts<1>{bit_cast<VecWord>(_mm512_unpackhi_epi16(a, b))}};
}
#endif

// The tokens [begin, end) of a step as bits.
inline uint64_t bits_between(int begin, int end) {
  return begin == end ? 0 : ~uint64_t{0} >> (kStepTokens - (end - begin)) << begin;
}

// All ones in the lanes whose bit is set.
inline VecWord lanes_of(uint64_t bits) {
  const VecWord lane = bit_cast<VecWord>(lane_numbers());
  return bit_cast<VecWord>((static_cast<uint32_t>(bits) >> lane & 1u) != 0u);
}

// Raises `largest` to the halves of `words`, without signs.
inline void raise_halves(Halves& largest, VecWord words) {
  const auto sizes = bit_cast<Halves>(words & 0x7fff7fffu);
  largest = largest > sizes ? largest : sizes;
}

inline bool all_finite(Halves largest) {
  return sum_of_lanes(bit_cast<VecInt>(largest >= 0x7f80) != 0) == 0;
}

// What the words of a step go through: those of tokens that no row sees become zero, if there are
// such, and the largest halves are noted. Codes are finite, whose soever they are, and so is what
// the first parts of finite values leave.
template <bool kMasked, typename T, int kParts>
struct Layer {
  Halves largest = {};

  // Sets a row of the tiles that hold the parts.
  template <typename Mask>
  [[gnu::always_inline]] void keep(Words (&tiles)[kParts], int row, const Parts<kParts>& parts,
                                   Mask mask) {
#pragma GCC unroll 2
    for (int p = 0; p < kParts; p++) {
      VecWord words = parts.words[p];
      if constexpr (kMasked && !kScaled<T>) words &= mask;
      store(tiles[p].rows[row], words);
      if (p == 0 && !kScaled<T>) raise_halves(largest, words);
    }
  }
};

inline constexpr int kSumTiles = 4, kFirstA = kSumTiles, kB = kFirstA + kExactParts;

// The CPU switches off what multiplies tiles when it has had nothing to do for some 2000 cycles,
// and takes some 800 to switch it on. So it gets a product that nobody reads, into a register that
// holds nothing at this time.
inline void stay_awake() { tile_dot_bf16<0, kFirstA, kB>(); }

// Has it switched on, if T needs it, beside what the thread does next.
template <typename T>
void wake() {
  if constexpr (kByTiles<T>) {
    const Tiles tiles({{}, {}, {}, {}, {}, {}, {}, {}});
    stay_awake();
  }
}

// Lays out the keys of a step whose bits are set in `seen`, and zeros for others of the blocks
// [from, to). Returns the largest halves: their exponents tell infinity and NaN.
template <bool kMasked, typename T, int kParts>
Halves lay_out_keys(const StepBlocks<T>& blocks, int from, int to, int64_t dim, uint64_t seen,
                    const StepTiles<kParts>& step, Ahead& ahead) {
  alignas(64) static constexpr T kZeros[kBlock] = {};
  Layer<kMasked, T, kParts> layer;
  for (int b = from; b < to; b++) {
    const VecWord lanes = lanes_of(seen >> b * kBlock);
    for (int64_t c = 0; c < depths(dim); c++) {
      const T* k = blocks[b].k + c * kDepth * kBlock;
      Words(&tiles)[kParts] = step.keys[c * kStepBlocks + b];
      const int64_t left = dim - c * kDepth;
      stay_awake();
      ahead.fetch();
      const int whole = static_cast<int>(left < kDepth ? left / 2 : kAmxRows);
      for (int i = 0; i < whole; i++) {
        layer.keep(tiles, i, load_rows<kParts>(k + 2 * i * kBlock), lanes);
      }
      for (int i = whole; i < kAmxRows; i++) {
        const T* last = 2 * i < left ? k + 2 * i * kBlock : kZeros;
        layer.keep(tiles, i, load_words<kParts>(last, kZeros), lanes);
      }
    }
  }
  return layer.largest;
}

// The same of the values.
template <bool kMasked, typename T, int kParts>
Halves lay_out_values(const StepBlocks<T>& blocks, int from, int to, int64_t dim, uint64_t seen,
                      const StepTiles<kParts>& step, Ahead& ahead) {
  Layer<kMasked, T, kParts> layer;
  for (int c = from / 2; c < (to + 1) / 2; c++) {
    const BlockView<T>& low = blocks[2 * c < from ? from : 2 * c];
    const BlockView<T>& high = blocks[2 * c + 1 < to ? 2 * c + 1 : 2 * c];
    const uint64_t tokens = seen >> c * kDepth;
    Words(*columns)[kParts] = step.values + c * columns_of(dim);
    for (int i = 0; i < kBlock; i++) {
      if (i % 4 == 0) ahead.fetch();
      if (i % (kBlock / 2) == 0) stay_awake();
      const uint32_t low_bits = tokens >> i & 1 ? 0xffffu : 0;
      const uint32_t high_bits = tokens >> (i + kBlock) & 1 ? 0xffff0000u : 0;
      const uint32_t bits = low_bits | high_bits;
      const T* low_v = low.v + i * low.v_stride;
      const T* high_v = high.v + i * high.v_stride;
      int64_t d = 0;
      for (; d + 2 * kLanes <= padded(dim); d += 2 * kLanes) {
        const auto [first, last] = load_word_pair<kParts>(low_v + d, high_v + d);
        layer.keep(columns[d / kAmxWords], i, first, bits);
        layer.keep(columns[d / kAmxWords + 1], i, last, bits);
      }
      if (d < padded(dim)) {
        layer.keep(columns[d / kAmxWords], i, load_words<kParts>(low_v + d, high_v + d), bits);
      }
    }
  }
  return layer.largest;
}

// Scales of values that no row sees are 0: their weights, which are 0, are multiplied by them.
// Raises `largest` to the exponents of the others.
inline void mask_scales(StepScales& scales, uint64_t seen, Halves& largest) {
  for (int t = 0; t < kStepTokens; t += kLanes) {
    const VecWord lanes = lanes_of(seen >> t);
    store(scales.v_scales + t, load<VecWord>(scales.v_scales + t) & lanes);
    raise_halves(largest, load<VecWord>(scales.v_scales + t) & 0xffff0000u);
    raise_halves(largest, load<VecWord>(scales.k_scales + t) & 0xffff0000u & lanes);
  }
}

template <typename T>
bool all_finite(const T* from, int64_t stride, int64_t count) {
  bool finite = true;
  for (int64_t i = 0; i < count; i++)
    finite &= to_float(from[i * stride]) - to_float(from[i * stride]) == 0.0f;
  return finite;
}

// Which tokens of the blocks have infinity or NaN in their key or value.
template <typename T>
uint64_t not_finite(const StepBlocks<T>& blocks, int from, int to, int64_t dim) {
  uint64_t bits = 0;
  for (int t = from * kBlock; t < to * kBlock; t++) {
    const BlockView<T>& block = blocks[t / kBlock];
    const int64_t i = t % kBlock;
    bool finite =
        all_finite(block.k + i, kBlock, dim) && all_finite(block.v + i * block.v_stride, 1, dim);
    if (block.k_scales != nullptr) {
      finite =
          finite && all_finite(block.k_scales + i, 1, 1) && all_finite(block.v_scales + i, 1, 1);
    }
    if (!finite) bits |= uint64_t{1} << t;
  }
  return bits;
}

// Calls body(std::integral_constant<int, 0>()), then with 1, and so on.
template <typename Body, int... kNumbers>
[[gnu::always_inline]] inline void each(std::integer_sequence<int, kNumbers...>, Body body) {
  (body(std::integral_constant<int, kNumbers>()), ...);
}
template <int kCount, typename Body>
[[gnu::always_inline]] inline void each(Body body) {
  each(std::make_integer_sequence<int, kCount>(), body);
}

// A row of a tile, part of a row of all tiles: a prompt's weights of a step, part by part.
struct Line {
  alignas(64) uint32_t words[kAmxWords];
};
inline constexpr int kWeightLines = kStepTokens / kDepth * kRowParts;  // of a row

// The rows' side of a product, of each 32 terms kParts parts: as tiles, or as lines of weights.
template <int kParts>
inline std::integral_constant<int, kParts> parts_of(const Words (*)[kParts]) {
  return {};
}
inline std::integral_constant<int, kRowParts> parts_of(const Line*) { return {}; }

template <int kTile, int kParts>
[[gnu::always_inline]] inline void load_part(const Words (*a)[kParts], int64_t c, int part) {
  tile_load<kTile>(&a[c][part], sizeof(Words) / kAmxRows);
}
template <int kTile>
[[gnu::always_inline]] inline void load_part(const Line* a, int64_t c, int part) {
  tile_load<kTile>(a + c * kRowParts + part, kWeightLines * sizeof(Line));
}

// Of the terms from 32 c on.
template <int kParts>
auto from_depth(const Words (*a)[kParts], int64_t c) {
  return a + c;
}
inline auto from_depth(const Line* a, int64_t c) { return a + c * kRowParts; }

// to [rows of the tiles][16 kColumns] (+)= a [][32 count] times b [32 count][16 kColumns], the
// smallest parts first; of three parts, products that are too small to count are left out. b's
// tiles of the next 32 terms lie `b_stride` further. Calls beside() once for each tile of b.
template <int kColumns, bool kAdd, int kOtherParts, typename A, typename Beside>
void multiply(A a, const Words (*b)[kOtherParts], int64_t b_stride, int64_t count, float* to,
              int64_t to_stride, Beside& beside) {
  constexpr int kParts = decltype(parts_of(a))::value;
  each<kColumns>([&](auto column) {
    if constexpr (kAdd) {
      tile_load<column>(to + column * kAmxWords, to_stride * sizeof(float));
    } else {
      tile_zero<column>();
    }
  });
  for (int64_t c = 0; c < count; c++) {
    each<kParts>([&](auto part) { load_part<kFirstA + part>(a, c, part); });
    each<kColumns>([&](auto column) {
      beside();
      each<kOtherParts>([&](auto larger) {
        constexpr int kOther = kOtherParts - 1 - larger;
        constexpr int kMeets = kParts < kExactParts ? kParts : kParts - kOther;
        tile_load<kB>(&b[c * b_stride + column][kOther], sizeof(Words) / kAmxRows);
        each<kMeets>([&](auto next) { tile_dot_bf16<column, kFirstA + kMeets - 1 - next, kB>(); });
      });
    });
  }
  each<kColumns>(
      [&](auto column) { tile_store<column>(to + column * kAmxWords, to_stride * sizeof(float)); });
}

// Sets the queries of the tile's rows. Of rows that fill up a multiple of 16 nothing is set: what
// is computed for them is not used.
template <int kCapacity, int kParts>
void lay_out_queries(TileOf<kCapacity>& tile, int64_t dim,
                     Words (*queries)[kMaxHeadDim / kDepth][kParts]) {
  for (int r = 0; r < tile.rows; r++) {
    memset(tile.q[r] + dim, 0, (depths(dim) * kDepth - dim) * sizeof(float));
    for (int64_t c = 0; c < depths(dim); c++) {
      const float* q = tile.q[r] + c * kDepth;
      split_neighbours<kParts>(load<Vec>(q), load<Vec>(q + kLanes), [&](int p, VecWord words) {
        store(queries[r / kAmxRows][c][p].rows[r % kAmxRows], words);
      });
    }
  }
}

// Turns the scores of a row, which sees some of the step, into weights of the first kDepths 32
// tokens. Calls keep(w, p, words) for their p'th parts among the w'th 32.
template <int kDepths, int kParts, int kCapacity, typename Keep>
[[gnu::always_inline]] inline void soften_seen(TileOf<kCapacity>& tile, int r, Keep keep) {
  Vec even;
  exponentiate<kDepths * kDepth / kLanes>(tile, r, [&](int v, Vec weight) {
    if (v % 2 == 0) {
      if (v == 2) tile.ahead.fetch();
      even = weight;
      return;
    }
    split<kParts>(even, weight, [&](int p, VecWord words) { keep(v / 2, p, words); });
  });
}

// The same of any row: what it does not see has weights of 0.
template <int kDepths, int kParts, int kCapacity, typename Keep>
[[gnu::always_inline]] inline void soften_row(TileOf<kCapacity>& tile, int r, Keep keep) {
  if (tile.end[r] > tile.begin[r]) return soften_seen<kDepths, kParts>(tile, r, keep);
  for (int w = 0; w < kDepths; w++) {
    for (int p = 0; p < kParts; p++) keep(w, p, VecWord{});
  }
}

// Of a row that sees the whole step: its scores are as they come from the products, and its maximum
// may have to rise yet.
template <int kParts, int kCapacity, typename Keep>
[[gnu::noinline, gnu::cold]] void soften_far_row(TileOf<kCapacity>& tile, int r, Keep keep) {
  if (tile.scaled) finish_scores<false>(tile, r, Scores{});
  raise_maximum(tile, r);
  soften_seen<kStepTokens / kDepth, kParts>(tile, r, keep);
}

// The same, in less instructions where all scores lie so near to the maximum that it stays and
// exp2() need not limit them: nearly always.
template <int kParts, bool kScaled, int kCapacity, typename Keep>
[[gnu::always_inline]] inline void soften_whole_row(TileOf<kCapacity>& tile, int r, Keep keep) {
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
    return soften_far_row<kParts>(tile, r, keep);
  Vec total = load<Vec>(tile.totals[r]);
  const auto weight = [&](int v) {
    const Vec power = exp2_of_rounded(x[v], rounded[v]);
    total += power;
    return kScaled ? rounded_product(power, load<Vec>(tile.v_scales + v * kLanes)) : power;
  };
#pragma GCC unroll 4
  for (int v = 0; v < kStepVectors; v += 2) {
    const Vec even = weight(v), odd = weight(v + 1);
    split<kParts>(even, odd, [&](int p, VecWord words) { keep(v / 2, p, words); });
  }
  store(tile.totals[r], total);
}

// The softmax of the rows from `row`. whole: they see all of the step, and no score is capped.
template <int kDepths, int kParts>
void soften_group(Tile& tile, int row, int rows, const Scores& how, bool whole,
                  RowTiles<kParts>& own) {
  const bool raise = whole && have_maxima(tile, row, rows);
  tile.ahead.fetch();
  if (raise) {
    store(tile.rescale + row, broadcast(1.0f));
  } else {
    raise_maxima(tile, row, how);
  }
  for (int i = 0; i < rows; i++) {
    const auto keep = [&](int w, int p, VecWord words) { store(own.weights[w][p].rows[i], words); };
    tile.ahead.fetch();
    if (i % 4 == 0) stay_awake();
    if (raise && tile.scaled) {
      soften_whole_row<kParts, true>(tile, row + i, keep);
    } else if (raise) {
      soften_whole_row<kParts, false>(tile, row + i, keep);
    } else {
      soften_row<kDepths, kParts>(tile, row + i, keep);
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
template <int kParts, int kOtherParts, typename Beside>
void multiply_queries(const Words (*queries)[kParts], const Words (*keys)[kOtherParts], int from,
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
template <bool kAdd, int kOtherParts, typename Weights, typename Beside>
void multiply_weights(Weights weights, const Words (*values)[kOtherParts], int from, int to,
                      int64_t dim, float* sums, Beside& beside) {
  const auto [first, end] = depths_between(from, to);
  const int64_t columns = columns_of(dim);
  for_runs<kSumTiles>(0, static_cast<int>(columns), [&](int c, auto run) {
    multiply<run, kAdd>(from_depth(weights, first), values + first * columns + c, columns,
                        end - first, sums + c * kAmxWords, kRowFloats, beside);
  });
}

// The scores of the group of rows from `row`.
template <int kParts, int kOtherParts>
void score_group(Tile& tile, int row, int from, int to, int64_t dim, const RowTiles<kParts>& own,
                 const StepTiles<kOtherParts>& step) {
  const auto fetch = [&] { tile.ahead.fetch(); };
  multiply_queries(own.queries[row / kAmxRows], step.keys, from, to, dim, tile.weights[row], fetch);
}

// Adds the blocks [from, to) of a step, laid out, to the rows that see them. The first rows' scores
// are there; the next rows' begin before these rows' softmax: the tiles multiply beside it.
template <int kParts, int kOtherParts>
void add_tiles(Tile& tile, int from, int to, const Scores& how, bool whole, RowTiles<kParts>& own,
               const StepTiles<kOtherParts>& step) {
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
             uint64_t seen, const RowTiles<kRowParts>& own, const StepTiles<kParts>& step) {
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
void add_step_by_tiles(Tile& tile, int64_t position, const Scores& how, View view,
                       RowTiles<kRowParts>& own, const StepTiles<kParts>& step) {
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
                   RowTiles<kRowParts>& own, CachedTiles<kParts>& cached) {
  walk_with_tiles(tile, begin, end, [&](int64_t p) {
    add_step_by_tiles<T>(tile, p, how, view, own, cached.view(tile.rows));
  });
}

}  // namespace
}  // namespace ingot::INGOT_LEVEL

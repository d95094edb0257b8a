// What tiles multiply where they meet a cache: the keys and values of a step, laid out once for all
// rows, and the rows' queries and weights. The elements of a bfloat16 cache and int8 codes are one
// bfloat16, those of a float16 cache two, rounded from 24 bits to 8 or 11 when they were written:
// the queries and weights that meet them are two, rounded to 16 bits.
//
// Words of keys and values are of two values that meet the words of a row. A word of K holds the
// dimensions 2 i and 2 i + 1, which lie side by side in a block, a word of V the tokens i and i +
// 16 of 32: those of a row are lane i of two vectors.
#pragma once

#include "attention_tile.h"
#include "bfloat_words.h"
#include "tile_products.h"

namespace ingot::INGOT_LEVEL {
namespace {

// float32 would take three parts, and as many of what meets them.
template <typename T>
inline constexpr bool kByTiles = kHasAmx && !std::is_same_v<T, float>;
template <typename T>
inline constexpr int kCacheParts = std::is_same_v<T, Half> ? 2 : 1;

inline constexpr int kRowParts = 2;  // of queries and weights

// The rows' side of a step's products.
struct RowTiles {
  Words queries[kTileRows / kAmxRows][kMaxHeadDim / kDepth][kRowParts];
  Words weights[kStepTokens / kDepth][kRowParts];  // of 16 rows
};

// A row of a tile, part of a row of all tiles: a prompt's weights of a step, part by part.
struct Line {
  alignas(64) uint32_t words[kAmxWords];
};
inline constexpr int kWeightLines = kStepTokens / kDepth * kRowParts;  // of a row

// Lines of weights as a product's first side.
inline std::integral_constant<int, kRowParts> parts_of(const Line*) { return {}; }
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

// Has it switched on, if T needs it, beside what the thread does next.
template <typename T>
void wake() {
  if constexpr (kByTiles<T>) {
    const Tiles tiles({{}, {}, {}, {}, {}, {}, {}, {}});
    stay_awake();
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

}  // namespace
}  // namespace ingot::INGOT_LEVEL

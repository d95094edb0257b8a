// The product of linear_w4 and linear_w8; see custom_ops/quantised_linear.py for the formula.
//
// x is rounded to integers once, group by group. A unit of work is some rows and one panel of 64
// output columns; it walks the panel's blocks in order. A block's sums of products are integers,
// exact; times the scales, the weight's first, they are added to the outputs in float32, in the
// order of the groups whatever the other rows are.
//
// Few rows meet the codes as they are unpacked in registers, and the memory sets the pace. For
// many, a block is unpacked once into the L1 cache, and tiles of 6 rows pass over it, 48 rows to a
// unit; or, where the CPU has AMX, tiles of 16 rows (quantised_tiles.h).
#pragma once

#include <omp.h>

#include "quantised_tiles.h"
#include "quantised_unit.h"
#include "sizes.h"

namespace ingot::INGOT_LEVEL {
namespace {

constexpr int64_t kRowBlock = 48;
constexpr int64_t kFewRows = 6;  // at most, to be met in place

// sums += the products of the words [begin, end) of x, at least kWords, with the codes in rows of
// 64 words from `from` on. fetch: and what is to be read next comes meanwhile.
template <typename Format, int kRows, int kVectors, typename X>
[[gnu::always_inline]] inline void add_words(const X& x, int64_t begin, int64_t end,
                                             const uint32_t* from, bool fetch,
                                             VecInt (&sums)[kRows][kVectors]) {
  int64_t i = begin;
  do {
    if (fetch) fetch_ahead(from);
#pragma GCC unroll 4
    for (int word = 0; word < Format::kWords; word++) {
      VecInt codes[kVectors];
#pragma GCC unroll 8
      for (int v = 0; v < kVectors; v++) {
        codes[v] = Format::unpack(load<VecWord>(from + v * kLanes), word);
      }
#pragma GCC unroll 6
      for (int row = 0; row < kRows; row++) {
        const VecInt value = static_cast<int32_t>(x.word(row, i, word)) - VecInt{};
#pragma GCC unroll 8
        for (int v = 0; v < kVectors; v++) {
          sums[row][v] = Format::add(sums[row][v], codes[v], value);
        }
      }
    }
    i += Format::kWords;
    from += kPanel;
  } while (i < end);
}

// The same, in runs of as many words as sums of 16 bits hold where a format needs that; a group's
// words are a multiple of those.
template <typename Format, int kRows, int kVectors, typename X>
[[gnu::always_inline]] inline void add_products(const X& x, int64_t begin, int64_t end,
                                                const uint32_t* from, bool fetch,
                                                VecInt (&dots)[kRows][kVectors]) {
  if constexpr (!Format::kRuns) return add_words<Format>(x, begin, end, from, fetch, dots);
  for (int64_t i = begin; i < end; i += kRun, from += kRun / Format::kWords * kPanel) {
    VecInt run[kRows][kVectors] = {};
    add_words<Format>(x, i, i + kRun, from, fetch, run);
#pragma GCC unroll 6
    for (int row = 0; row < kRows; row++) {
#pragma GCC unroll 8
      for (int v = 0; v < kVectors; v++) {
        dots[row][v] += multiply_pairs(run[row][v], 0x00010001 - VecInt{});
      }
    }
  }
}

// sums [kRows][64] += scales of x and weight times the dot products of one block. `words`: its
// codes, [words_of_x / Format::kWords][64].
template <typename Format, int kRows, Scheme kScheme, bool kFetch, typename X>
[[gnu::always_inline]] inline void multiply_block(const X& x, const uint32_t* words,
                                                  int64_t words_of_x, const BlockHeader& header,
                                                  float* sums) {
  constexpr int kVectors = tile_vectors(kRows);
  constexpr int64_t kParts = kScheme == Scheme::kMultipliers ? kMultipliers : 1;
  // Known to the compiler where groups have one size: 0.9 to 0.98 of the time.
  const int64_t part_words =
      kScheme == Scheme::kMultipliers ? kMultiplied / kPerWord<Format> : words_of_x;
  for (int64_t column = 0; column < kPanel; column += kVectors * kLanes) {
    VecInt totals[kRows][kVectors] = {};
    for (int64_t part = 0; part < kParts; part++) {
      VecInt dots[kRows][kVectors];
#pragma GCC unroll 6
      for (int row = 0; row < kRows; row++) {
#pragma GCC unroll 8
        for (int v = 0; v < kVectors; v++) {
          dots[row][v] = x.offset(row, part) - VecInt{};
          if (kScheme == Scheme::kZeroPoints) {
            dots[row][v] *= load<VecInt>(header.zeros + column + v * kLanes);
          }
        }
      }
      const int64_t begin = part * part_words;
      add_products<Format>(x, begin, begin + part_words,
                           words + begin / Format::kWords * kPanel + column, kFetch && column == 0,
                           dots);
#pragma GCC unroll 8
      for (int v = 0; v < kVectors; v++) {
        VecInt multiplier = 1 - VecInt{};
        if (kScheme == Scheme::kMultipliers) {
          multiplier = load_bytes(header.multipliers + part * kPanel + column + v * kLanes);
        }
#pragma GCC unroll 6
        for (int row = 0; row < kRows; row++) totals[row][v] += dots[row][v] * multiplier;
      }
    }
#pragma GCC unroll 6
    for (int row = 0; row < kRows; row++) {
#pragma GCC unroll 8
      for (int v = 0; v < kVectors; v++) {
        float* sum = sums + row * kPanel + column + v * kLanes;
        const Vec scale = load<Vec>(header.scales + column + v * kLanes);
        const Vec scaled = __builtin_convertvector(totals[row][v], Vec) * scale;
        store(sum, load<Vec>(sum) + scaled * x.scale(row));
      }
    }
  }
}

// A block's codes, each word its kWords.
template <typename Format>
void unpack_block(const uint32_t* words, int64_t count, uint32_t* to) {
  for (int64_t i = 0; i < count; i += Format::kWords, words += kPanel) {
    fetch_ahead(words);
    for (int64_t column = 0; column < kPanel; column += kLanes) {
      const auto word = load<VecWord>(words + column);
#pragma GCC unroll 4
      for (int part = 0; part < Format::kWords; part++) {
        store(to + part * kPanel + column, Format::unpack(word, part));
      }
    }
    to += Format::kWords * kPanel;
  }
}

template <typename Format, Scheme kScheme, int kRows>
void sum_few_rows(const Unit& unit, float* sums) {
  unit.begin(sums, kRows);
  const QuantisedWeight& weight = unit.call.weight;
  const Activations& x = unit.x;
  BlockHeader header;
  for (int64_t g = 0; g < weight.groups; g++) {
    const uint8_t* block = weight.block(unit.panel, g);
    header.read(weight, block);
    const auto* codes = reinterpret_cast<const uint32_t*>(block + weight.codes_offset);
    for (int64_t at = g * unit.call.passes; at < (g + 1) * unit.call.passes; at++) {
      const GroupOfRows<kRows, Format::kWords> rows(x, 0, at);
      multiply_block<Format, kRows, kScheme, true>(rows, codes, x.words_per_group, header, sums);
    }
  }
}

// multiply_block of a tile of kTileRows. Not inlined: the compiler would keep the sums in memory.
template <typename Format, Scheme kScheme, typename X>
[[gnu::noinline]] void multiply_tile(X x, const uint32_t* words, int64_t count,
                                     const BlockHeader& header, float* sums) {
  multiply_block<Unpacked<Format>, kTileRows, kScheme, false>(x, words, count, header, sums);
}

template <typename Format, Scheme kScheme>
void sum_many_rows(const Unit& unit, float* sums) {
  alignas(64) uint32_t codes[kMostGroup * kPanel / kPerWord<Format>];
  const int64_t tiles = ceil_div(unit.rows, kTileRows);
  unit.begin(sums, tiles * kTileRows);
  const QuantisedWeight& weight = unit.call.weight;
  const Activations& x = unit.x;
  BlockHeader header;
  for (int64_t g = 0; g < weight.groups; g++) {
    const uint8_t* block = weight.block(unit.panel, g);
    header.read(weight, block);
    unpack_block<Format>(reinterpret_cast<const uint32_t*>(block + weight.codes_offset),
                         x.words_per_group, codes);
    for (int64_t t = 0; t < tiles; t++) {
      for (int64_t at = g * unit.call.passes; at < (g + 1) * unit.call.passes; at++) {
        const GroupOfRows<kTileRows, 1> rows(x, unit.row / kTileRows + t, at);
        multiply_tile<Format, kScheme>(rows, codes, x.words_per_group, header,
                                       sums + t * kTileRows * kPanel);
      }
    }
  }
}

// Computes a unit by sum_up(unit, sums).
template <int64_t kMostRows, typename SumUp>
void compute_unit(const Unit& unit, SumUp sum_up) {
  alignas(64) float sums[kMostRows * kPanel];
  sum_up(unit, sums);
  if (unit.call.activated.function == Activation::kNone) return unit.end(sums);
  write_activated<kMostRows>(unit, sums, false, sum_up);
}

template <typename Format, Scheme kScheme, int kRows>
void few_rows(const Unit& unit) {
  compute_unit<kRows>(unit, sum_few_rows<Format, kScheme, kRows>);
}

template <typename Format, Scheme kScheme>
void few_rows(const Unit& unit) {
  switch (unit.rows) {
    case 1:
      return few_rows<Format, kScheme, 1>(unit);
    case 2:
      return few_rows<Format, kScheme, 2>(unit);
    case 3:
      return few_rows<Format, kScheme, 3>(unit);
    case 4:
      return few_rows<Format, kScheme, 4>(unit);
    case 5:
      return few_rows<Format, kScheme, 5>(unit);
    default:
      return few_rows<Format, kScheme, 6>(unit);
  }
}

// A thread's panels lie one behind the other as far as it can: what is fetched ahead is its own.
template <typename Format, Scheme kScheme>
void run_few(const QuantisedLinear& whole, bool parallel) {
  const Room<Format> room(whole, true, whole.rows, whole.weight.groups * whole.passes);
  const Deferred deferred(whole, true, room.sums());
  const QuantisedLinear& call = deferred.product();
  const Activations x = room.x();
  const int64_t shares = parallel ? omp_get_max_threads() : 1;
  int64_t* taken = none_taken(shares);
#pragma omp parallel if (parallel)
  {
#pragma omp for collapse(2) schedule(static)
    for (int64_t g = 0; g < call.weight.groups; g++) {
      for (int64_t r = 0; r < call.rows; r++) {
        round_row_group<Format, Format::kWords>(call, r, g, call.rows, x);
      }
    }
    take_stretches(taken, shares, call.weight.panels, [&](int64_t panel, int64_t) {
      few_rows<Format, kScheme>({call, x, panel, 0, call.rows});
    });
    deferred.finish();
  }
}

template <typename Format, Scheme kScheme>
void run_many(const QuantisedLinear& whole, bool parallel) {
  const int64_t tiles = ceil_div(whole.rows, kTileRows);
  const Room<Format> room(whole, false, tiles * kTileRows, whole.weight.groups * whole.passes);
  const Deferred deferred(whole, false, room.sums());
  const QuantisedLinear& call = deferred.product();
  const Activations x = room.x();
#pragma omp parallel if (parallel)
  {
#pragma omp for schedule(static)
    for (int64_t tile = 0; tile < tiles; tile++) round_tile<Format>(call, tile, x);
#pragma omp for collapse(2) schedule(dynamic, 1)
    for (int64_t panel = 0; panel < unit_panels(call); panel++) {
      for (int64_t row = 0; row < call.rows; row += kRowBlock) {
        compute_unit<kRowBlock>({call, x, panel, row, least(call.rows - row, kRowBlock)},
                                sum_many_rows<Format, kScheme>);
      }
    }
    deferred.finish();
  }
}

template <typename Format, Scheme kScheme>
void run(const QuantisedLinear& call) {
  if (call.rows == 0) return;
  const bool parallel = call.rows * call.columns * call.depth > kParallelWork;
  if (call.rows <= kFewRows) return run_few<Format, kScheme>(call, parallel);
#if defined(INGOT_AMX)
  run_tiles<Format, kScheme>(call, parallel);
#else
  run_many<Format, kScheme>(call, parallel);
#endif
}

template <typename Format>
void run(const QuantisedLinear& call) {
  if (call.weight.zero_points) return run<Format, Scheme::kZeroPoints>(call);
  if constexpr (kColumnsPerWord<Format> == 8) {
    if (call.weight.multipliers) return run<Format, Scheme::kMultipliers>(call);
  }
  run<Format, Scheme::kSymmetric>(call);
}

}  // namespace
}  // namespace ingot::INGOT_LEVEL

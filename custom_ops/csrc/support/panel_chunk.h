// How many rows of linear_w4 and linear_w8 are cut into tiles, and the codes of a panel as those
// meet them (quantised_tiles.h).
#pragma once

#if defined(INGOT_AMX)

#include <type_traits>

#include "amx.h"
#include "quantised_unit.h"
#include "sizes.h"

namespace ingot::INGOT_LEVEL {
namespace {

constexpr int64_t kColumnTiles = kPanel / kAmxWords;
constexpr int kChunkTiles = 4;  // of x

// How x of a Format meets codes of groups of 32 or 64 columns (kDeep 1), or of 128 (kDeep 2).
// `steps`: of a chunk, for each column of tiles.
template <typename F, Scheme scheme, int deep, bool half_scales, int rows,
          int steps = kChunkTiles / (deep * static_cast<int>(sizeof(typename F::Value)))>
struct TilePlan {
  using Format = F;
  // Whose order of bytes unpacked codes have.
  using Order = std::conditional_t<kColumnsPerWord<Format> == 8, Nibbles8, Bytes8>;
  static constexpr int kDeep = deep;
  static constexpr int kRows = rows;  // of a tile of x, 16 or 8: they all are multiplied and scaled
  static constexpr int kPlanes = sizeof(typename Format::Value);
  static constexpr int kSteps = steps;
  using Single = TilePlan<F, scheme, deep, half_scales, rows, 1>;  // for what is left of the depth
  // Columns of tiles after which the registers of products have had their turns.
  static constexpr int kTurn = kSteps % 2 == 0 ? 1 : 2;
  // Steps that have begun after the one that is added: as there are registers, and one is stored.
  static constexpr int kAhead = kPlanes == 1 ? 3 : 2;
  static constexpr int64_t kMostColumns = 64 * kDeep;  // of a group
  static constexpr bool kMultipliers = scheme == Scheme::kMultipliers;
  // Zero points that signed codes do not hold: 8 bits less 8 bits are 9.
  static constexpr bool kOffsets = scheme == Scheme::kZeroPoints && kColumnsPerWord<Format> == 4;
  // add_step's shortcut is exact: sums of 8-bit x are below 2^22, and a float16 times 1.5 * 2^23
  // takes no more than a float's bits.
  static constexpr bool kByShift = kPlanes == 1 && half_scales;
};

constexpr int32_t kIntegersBits = 0x4b400000;  // of 1.5 * 2^23: floats count by ones here

// Of a panel: codes less their zero point, as signed bytes, and what scales the steps.
template <typename Plan>
struct PanelChunk {
  alignas(64) uint32_t codes[Plan::kSteps * Plan::kMostColumns / 4 * kPanel];  // in steps' order
  BlockHeader columns[Plan::kSteps];
  alignas(64) float shifts[Plan::kSteps][kPanel];

  // Takes the groups that the steps from `first` on (each pass has its own) multiply. fetch: and
  // what is to be unpacked next comes meanwhile.
  template <bool fetch>
  void unpack(const QuantisedLinear& call, int64_t panel, int64_t first) {
    const QuantisedWeight& weight = call.weight;
    for (int64_t step = 0; step < Plan::kSteps; step++) {
      const int64_t g = (first + step) / call.passes;
      if (g >= weight.groups) {  // x is zero there
        memset(columns + step, 0, sizeof(BlockHeader));
        memset(shifts + step, 0, sizeof(shifts[step]));
        continue;
      }
      const uint8_t* block = weight.block(panel, g);
      columns[step].read(weight, block);
      if (!weight.zero_points) {
        for (int32_t& zero : columns[step].zeros) zero = call.middle;
      }
      const auto* words = reinterpret_cast<const uint32_t*>(block + weight.codes_offset);
      unpack_codes<fetch>(words, weight.group_size, columns[step],
                          codes + step * weight.group_size / 4 * kAmxWords);
      for (int64_t c = 0; c < kPanel; c += kLanes) {
        store(shifts[step] + c, load<Vec>(columns[step].scales + c) * -0x1.8p23f);
        if (Plan::kOffsets) {
          store(columns[step].zeros + c, load<VecInt>(columns[step].zeros + c) - call.middle);
        }
      }
    }
  }

 private:
  using SignedBytes = int8_t __attribute__((vector_size(kLanes * 4)));

  static VecWord subtract(VecWord codes, VecWord zeros) {
    return bit_cast<VecWord>(bit_cast<SignedBytes>(codes) - bit_cast<SignedBytes>(zeros));
  }

  // Bytes of each word times its multiplier: none takes more than a byte, so two are one product.
  static VecWord multiply(VecWord codes, VecWord multipliers) {
    using Pairs = uint16_t __attribute__((vector_size(kLanes * 4)));
    return bit_cast<VecWord>(bit_cast<Pairs>(codes) * bit_cast<Pairs>(multipliers * 0x00010001u));
  }

  template <bool fetch>
  static void unpack_codes(const uint32_t* words, int64_t group_size, const BlockHeader& header,
                           uint32_t* to) {
    constexpr int64_t kParts = Plan::kMultipliers ? kMultipliers : 1;
    const int64_t column_words = Plan::kSteps * group_size / 4 * kAmxWords;
    const int64_t words_of_part = group_size / kColumnsPerWord<typename Plan::Format> / kParts;
    for (int64_t part = 0; part < kParts; part++) {
      VecWord from_all[kColumnTiles], multipliers[kColumnTiles];
      for (int64_t t = 0; t < kColumnTiles; t++) {
        from_all[t] = Plan::kOffsets ? 0x80808080u - VecWord{}
                                     : load<VecWord>(header.zeros + t * kAmxWords) * 0x01010101u;
        const uint8_t* from = header.multipliers + part * kPanel + t * kAmxWords;
        multipliers[t] = Plan::kMultipliers ? bit_cast<VecWord>(load_bytes(from)) : VecWord{};
        if (Plan::kMultipliers) from_all[t] = multiply(from_all[t], multipliers[t]);
      }
      for (int64_t i = 0; i < words_of_part; i++) {
        if (fetch) fetch_ahead(words);
#pragma GCC unroll 4
        for (int64_t t = 0; t < kColumnTiles; t++, words += kAmxWords) {
          const auto word = load<VecWord>(words);
          uint32_t* column = to + t * column_words;
          for (int w = 0; w < Plan::Order::kWords; w++) {
            auto codes = bit_cast<VecWord>(Plan::Order::unpack(word, w));
            if (Plan::kMultipliers) codes = multiply(codes, multipliers[t]);
            store(column + w * kAmxWords, subtract(codes, from_all[t]));
          }
        }
        to += Plan::Order::kWords * kAmxWords;
      }
    }
  }
};

}  // namespace
}  // namespace ingot::INGOT_LEVEL

#endif

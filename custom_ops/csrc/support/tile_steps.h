// The steps of quantised_tiles.h: their products, and how those are scaled and added.
#pragma once

#if defined(INGOT_AMX)

#include "panel_chunk.h"

namespace ingot::INGOT_LEVEL {
namespace {

constexpr int64_t kProduct = kAmxRows * kAmxWords;

// Registers: the products of two planes or of two steps, codes, x.
constexpr int kProductTile = 0, kCodesTile = 2, kXTile = 4;

// Steps in their order: the columns of tiles of one row of tiles, then those of the next. Tile
// instructions name registers as constants, hence the templates.
template <typename Plan>
class TileSteps {
 public:
  static constexpr int kSteps = Plan::kSteps;

  TileSteps(const PanelChunk<Plan>& chunk, int64_t group_size)
      : group_size_(group_size),
        codes_(chunk.codes),
        next_codes_(chunk.codes),
        end_(chunk.codes + kSteps * group_size / 4 * kPanel) {}

  // One step's x, of a chunk.
  template <int kStep>
  [[gnu::always_inline]] void load_x(const uint32_t* chunk) const {
    constexpr int kCount = Plan::kDeep * Plan::kPlanes, kFirst = kStep * kCount;
    const int64_t row = group_size_ / Plan::kDeep, tile = row / 4 * Plan::kRows;
    chunk += kFirst * tile;
    tile_load<kXTile + kFirst>(chunk, row);
    if constexpr (kCount > 1) tile_load<kXTile + kFirst + 1>(chunk + tile, row);
    if constexpr (kCount > 2) {
      tile_load<kXTile + kFirst + 2>(chunk + 2 * tile, row);
      tile_load<kXTile + kFirst + 3>(chunk + 3 * tile, row);
    }
  }

  // Multiplies the next step, which is the kNumber-th of a turn.
  template <int kNumber>
  [[gnu::always_inline]] void begin() {
    tile_load<kCodesTile>(next_codes_, kLineBytes);
    if constexpr (Plan::kDeep == 2) {
      tile_load<kCodesTile + 1>(next_codes_ + kProduct, kLineBytes);
    }
    next_codes_ += group_size_ / 4 * kAmxWords;
    if (next_codes_ == end_) next_codes_ = codes_;
    constexpr int kTo = product_tile(kNumber);
    tile_zero<kTo>();
    if constexpr (Plan::kPlanes == 2) tile_zero<kTo + 1>();
    multiply<kTo, kNumber % kSteps, 0>();
    if constexpr (Plan::kDeep == 2) multiply<kTo, kNumber % kSteps, 1>();
  }

  // Stores the product of a turn's kNumber-th step.
  template <int kNumber>
  [[gnu::always_inline]] static void end(int32_t* dots) {
    constexpr int kFrom = product_tile(kNumber);
    tile_store<kFrom>(dots, kLineBytes);
    if constexpr (Plan::kPlanes == 2) tile_store<kFrom + 1>(dots + kProduct, kLineBytes);
  }

 private:
  static constexpr int product_tile(int number) {
    return Plan::kPlanes == 1 ? kProductTile + number % 2 : kProductTile;
  }

  template <int kTo, int kStep, int kPart>
  [[gnu::always_inline]] static void multiply() {
    constexpr int kX = kXTile + (kStep * Plan::kDeep + kPart) * Plan::kPlanes;
    tile_dot_s8s8<kTo, kX, kCodesTile + kPart>();
    if constexpr (Plan::kPlanes == 2) {
      tile_dot_u8s8<kTo + 1, kX + 1, kCodesTile + kPart>();
    }
  }

  int64_t group_size_;
  const uint32_t* codes_;
  const uint32_t* next_codes_;
  const uint32_t* end_;
};

// a * b + c, rounded once; elsewhere the compiler may fuse or not.
inline Vec fused(Vec a, Vec b, Vec c) {
  const auto x = bit_cast<__m512>(a), y = bit_cast<__m512>(b), z = bit_cast<__m512>(c);
  return bit_cast<Vec>(_mm512_fmadd_ps(x, y, z));
}

// sums += a step's products, scaled, to the bit as multiply_block does it. By shift, an integer is
// made a float and scaled in one instruction: it is added to the bits of 1.5 * 2^23, and what that
// adds to the float (times the scale, the "shift") is taken off by the fused multiplication.
template <typename Plan>
[[gnu::always_inline]] inline void add_step(Vec (&sums)[Plan::kRows], const int32_t* dots,
                                            const float* x_scales, const int32_t* x_offsets,
                                            const float* scales, const float* shifts,
                                            const int32_t* zeros) {
  const auto scale = load<Vec>(scales), shift = load<Vec>(shifts);
#pragma GCC unroll 16
  for (int r = 0; r < Plan::kRows; r++) {
    auto dot = load<VecWord>(dots + r * kAmxWords);
    if (Plan::kPlanes == 2) dot = (dot << 8) + load<VecWord>(dots + kProduct + r * kAmxWords);
    if (Plan::kOffsets) dot += static_cast<uint32_t>(x_offsets[r]) * load<VecWord>(zeros);
    const Vec scaled = Plan::kByShift ? fused(bit_cast<Vec>(dot + kIntegersBits), scale, shift)
                                      : __builtin_convertvector(bit_cast<VecInt>(dot), Vec) * scale;
    sums[r] += scaled * x_scales[r];
  }
}

}  // namespace
}  // namespace ingot::INGOT_LEVEL

#endif

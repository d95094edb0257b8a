// linear_many's product with a float32 weight by AMX's tiles, as exact as in float32: x and the
// weight are three parts each (parts.h), of whose nine products six are summed.
//
// A step is 32 values of k, a block four steps, a slab six blocks. A unit is up to 256 rows of x,
// of which L2 holds a slab, times half a panel, 32 columns. Rows pass over a block of the weight 32
// by 32. Its parts lie in the L1 cache; they are split from the weight while rows pass over the
// block before, between the products of tiles, which take their time.
//
// Every output has two sums, of the products of the largest parts and of all others: what is small
// is added to what is large only once, at the end of a slab. Both are float32 in the tiles as in
// memory, where they are between blocks. So every output is summed in one order, however many rows
// a unit has: a row's result depends only on the row.
#pragma once

#include <type_traits>
#include <utility>

#include "amx.h"
#include "kept.h"
#include "packed.h"
#include "parts.h"
#include "sizes.h"

#if defined(INGOT_AMX)

namespace ingot::INGOT_LEVEL {
namespace {

constexpr int64_t kStepDepth = 2 * kAmxWords;         // values of k
constexpr int64_t kTileWords = kAmxRows * kAmxWords;  // of a tile: 1 KiB
constexpr int64_t kTileRowBytes = kAmxWords * 4;
constexpr int64_t kHalf = kPanel / 2;        // columns of a unit, two tiles
constexpr int64_t kPairRows = 2 * kAmxRows;  // rows that pass together, two tiles
constexpr int64_t kMostUnitPairs = 8;
constexpr int64_t kBlockSteps = 4, kSlabSteps = 24;
constexpr int64_t kStepShares = 6;  // how often split_share() is called in a step

// Some rows of x as tiles [rows/16][steps][parts][16 rows][16 words], zero beyond x's rows and
// columns; a word holds the values of k and k + 16. Each thread splits the rows that it multiplies:
// to get them from another core's caches takes longer. The memory is the thread's.
class SplitRows {
 public:
  // Nothing is done where these rows are split.
  void split(const PackedLinear& call, int64_t row, int64_t row_end) {
    if (row == row_) return;
    static thread_local Kept<uint32_t> space;  // kept: a step allocates nothing
    static thread_local Kept<uint8_t> kept_fits;
    row_ = row;
    row_end_ = least(row_end, call.rows);
    steps_ = most(ceil_div(call.weight.depth, kStepDepth), 1);  // zeros, where K is 0
    const int64_t tiles = ceil_div(row_end_ - row_, kAmxRows);
    words_ = grown(space, tiles * tile_words());
    fits_ = grown(kept_fits, tiles * kAmxRows);
    for (int64_t r = 0; r < tiles * kAmxRows; r++) split_row(call, r);
  }

  int64_t row() const { return row_; }
  int64_t row_end() const { return row_end_; }
  int64_t steps() const { return steps_; }
  bool fits_tiles(int64_t row) const { return fits_[row - row_]; }

  int64_t tile_words() const { return steps_ * kExactParts * kTileWords; }
  const uint32_t* at(int64_t tile, int64_t step) const {
    return words_ + tile * tile_words() + step * kExactParts * kTileWords;
  }

 private:
  void split_row(const PackedLinear& call, int64_t r) {
    const int64_t depth = row_ + r < row_end_ ? call.weight.depth : 0;
    const float* from = call.x + (row_ + r) * call.x_stride;
    uint32_t* to = words_ + r / kAmxRows * tile_words() + r % kAmxRows * kAmxWords;
    LargestSize largest;
    for (int64_t step = 0; step < steps_; step++) {
      alignas(64) float padded[kStepDepth];
      const float* floats = from + step * kStepDepth;
      const int64_t count = least(depth - step * kStepDepth, kStepDepth);
      if (count < kStepDepth) {
        memset(padded, 0, sizeof(padded));
        if (count > 0) memcpy(padded, floats, static_cast<size_t>(count) * sizeof(float));
        floats = padded;
      }
      const Vec low = load<Vec>(floats), high = load<Vec>(floats + kLanes);
      largest.add(low);
      largest.add(high);
      ingot::INGOT_LEVEL::split(
          low, high, [&](int part, VecWord words) { store(to + part * kTileWords, words); });
      to += kExactParts * kTileWords;
    }
    fits_[r] = largest.fits_tiles();
  }

  uint32_t* words_ = nullptr;
  uint8_t* fits_ = nullptr;
  int64_t row_ = -1, row_end_ = 0, steps_ = 0;
};

// What the columns of half a panel, and their sums, tell of where they are to be computed.
struct HalfSeen {
  SetBits weights[2];
  LargestSize sums;

  bool weights_fit_tiles() const { return weights[0].fit_tiles() && weights[1].fit_tiles(); }
};

// Halves of panels that a thread takes at once: each slab of x meets all of them while it is in L2.
struct Halves {
  int64_t first, count;
};
constexpr int64_t kMostHalves = 3;

// The blocks of some halves, split into parts one after the other: of the first slab those of each
// half, then of the second. While one block is multiplied, the next is split, and the one behind
// that is fetched into L2.
class SplitBlocks {
 public:
  SplitBlocks(const PackedWeight& weight, Halves halves, int64_t steps, HalfSeen* seen)
      : weight_(weight), halves_(halves), steps_(steps), seen_(seen) {}

  // Begins to split the next block, if there is one, in so many shares.
  void begin(int64_t shares) {
    step_ += block_steps_;
    if (step_ == slab_end()) {
      half_ = (half_ + 1) % halves_.count;
      if (half_ == 0) slab_ = step_;
      step_ = slab_;
    }
    block_steps_ = least(slab_end() - step_, kBlockSteps);
    shares_ = shares;
    row_ = owed_ = 0;
    from_ = half_panel(half_, step_);
    next_ = step_ + block_steps_ < slab_end() ? half_panel(half_, step_ + block_steps_)
                                              : half_panel(half_ + 1, slab_);
  }
  [[gnu::always_inline]] void split_share() {
    for (owed_ += block_steps_ * kAmxRows; owed_ >= shares_; owed_ -= shares_) split_row();
  }
  // Splits the rest, and turns to that block, which has so many steps.
  int64_t turn() {
    while (row_ < block_steps_ * kAmxRows) split_row();
    std::swap(words_, other_words_);
    return block_steps_;
  }

  // 16 columns of a part of a step of the block that was turned to.
  const uint32_t* at(int64_t step, int part, int column) const {
    return words_ + tile(step, part, column);
  }

 private:
  static constexpr int64_t kBlockWords = kBlockSteps * kExactParts * 2 * kTileWords;

  static int64_t tile(int64_t step, int part, int column) {
    return ((step * kExactParts + part) * 2 + column) * kTileWords;
  }

  int64_t slab_end() const { return least(slab_ + kSlabSteps, steps_); }

  const float* half_panel(int64_t half, int64_t step) const {
    half += halves_.first;
    return reinterpret_cast<const float*>(weight_.words) + half / 2 * weight_.panel_words() +
           half % 2 * kHalf + step * kStepDepth * kPanel;
  }

  static void fetch(const float* from) {
    __builtin_prefetch(from, 0, 2);
    __builtin_prefetch(from + kAmxWords, 0, 2);
  }

  [[gnu::always_inline]] void split_row() {
    alignas(64) static constexpr float kZeros[kHalf] = {};
    const int64_t step = row_ / kAmxRows, row = row_ % kAmxRows;
    const int64_t k = step * kStepDepth + row, other = k + kAmxRows;
    const int64_t depth = weight_.depth - step_ * kStepDepth;
    const float* low = k < depth ? from_ + k * kPanel : kZeros;
    const float* high = other < depth ? from_ + other * kPanel : kZeros;
    uint32_t* to = other_words_ + tile(step, 0, 0) + row * kAmxWords;
    fetch(next_ + k * kPanel);
    fetch(next_ + other * kPanel);
#pragma GCC unroll 2
    for (int v = 0; v < 2; v++) {
      const Vec a = load<Vec>(low + v * kLanes), b = load<Vec>(high + v * kLanes);
      seen_[half_].weights[v].add(a, b);
      split(a, b, [&](int part, VecWord words) { store(to + tile(0, part, v), words); });
    }
    row_++;
  }

  const PackedWeight& weight_;
  Halves halves_;
  int64_t steps_;
  HalfSeen* seen_;
  int64_t slab_ = 0, half_ = 0, step_ = 0, block_steps_ = 0;  // of the block that is split
  const float* from_ = nullptr;                               // it
  const float* next_ = nullptr;                               // the one behind it
  int64_t shares_ = 0, owed_ = 0, row_ = 0;
  alignas(64) uint32_t space_[2][kBlockWords];
  uint32_t* words_ = space_[0];
  uint32_t* other_words_ = space_[1];
};

// The rows of x that are split times some halves.
class FloatUnit {
 public:
  FloatUnit(const PackedLinear& call, const SplitRows& x, Halves halves)
      : call_(call), x_(x), halves_(halves), weight_(call.weight, halves, x.steps(), seen_) {}

  void multiply() {
    weight_.begin(1);
    for (int64_t slab = 0; slab < x_.steps(); slab += kSlabSteps) {
      for (int64_t half = 0; half < halves_.count; half++) add_slab(half, slab);
    }
  }

  // Whether what is in the output is to be computed in float32 arithmetic, which the row and the
  // half's columns alone decide.
  bool in_floats(int64_t row, int64_t half) const {
    const HalfSeen& seen = seen_[half];
    return !seen.weights_fit_tiles() || !x_.fits_tiles(row) ||
           !(seen.sums.all_finite() || sums_are_finite(row, half));
  }

 private:
  enum Kind { kSmall, kLarge };

  int64_t column(int64_t half) const { return (halves_.first + half) * kHalf; }
  int64_t columns(int64_t half) const { return least(call_.columns - column(half), kHalf); }

  // Adds a slab, from its first step, to a half's columns of the output.
  void add_slab(int64_t half, int64_t slab) {
    const int64_t end = least(slab + kSlabSteps, x_.steps());
    const int64_t tiles = ceil_div(x_.row_end() - x_.row(), kAmxRows);
    for (int64_t steps, step = slab; step < end; step += steps) {
      steps = weight_.turn();
      weight_.begin(ceil_div(tiles, 2) * steps * kStepShares);
      first_ = step == slab;
      large_ = nullptr;
      for (int64_t tile = 0; tile + 2 <= tiles; tile += 2) multiply_tiles<2>(tile, step, steps);
      if (tiles % 2 == 1) multiply_tiles<1>(tiles - 1, step, steps);
      store_large<0>();
      store_large<1>();
      store_large<2>();
      store_large<3>();
    }
    write(half, slab == 0);
  }

  template <int kSum>
  void store_large() const {
    tile_store<kSum>(large_ + kSum * kTileWords, kTileRowBytes);
  }
  template <int kSum>
  void load_or_zero(const float* sums) const {
    if (first_) {
      tile_zero<kSum>();
    } else {
      tile_load<kSum>(sums + kSum * kTileWords, kTileRowBytes);
    }
  }

  // Loads a part of one or two tiles of x.
  template <int kRowTiles>
  [[gnu::always_inline]] void load_rows(const uint32_t* x, int part) const {
    x += part * kTileWords;
    tile_load<4>(x, kTileRowBytes);
    if constexpr (kRowTiles == 2) tile_load<5>(x + x_.tile_words(), kTileRowBytes);
  }
  [[gnu::always_inline]] void load_columns(int64_t step, int part) const {
    tile_load<6>(weight_.at(step, part, 0), kTileRowBytes);
    tile_load<7>(weight_.at(step, part, 1), kTileRowBytes);
  }

  // Sums in the tiles 0 to 3 += rows times columns. Before a tile of sums is added to, `before` is
  // called with its number.
  template <int kRowTiles, typename Before>
  [[gnu::always_inline]] void multiply(Before before) {
    before(std::integral_constant<int, 0>());
    tile_dot_bf16<0, 4, 6>();
    before(std::integral_constant<int, 1>());
    tile_dot_bf16<1, 4, 7>();
    if constexpr (kRowTiles == 2) {
      before(std::integral_constant<int, 2>());
      tile_dot_bf16<2, 5, 6>();
      before(std::integral_constant<int, 3>());
      tile_dot_bf16<3, 5, 7>();
    }
    weight_.split_share();
  }
  template <int kRowTiles>
  [[gnu::always_inline]] void multiply() {
    multiply<kRowTiles>([](auto) {});
  }

  // Adds a block to one or two tiles of rows: first the five products of smaller parts, then that
  // of the largest. Sums are stored, and others loaded, between products: neither has to wait. A
  // lone tile stores what the two before it left in tiles 2 and 3; its own are never read.
  template <int kRowTiles>
  void multiply_tiles(int64_t tile, int64_t begin, int64_t steps) {
    float* small = sums_[tile / 2][kSmall];
    const uint32_t* rows = x_.at(tile, begin);
    const uint32_t* x = rows;
    for (int64_t step = 0; step < steps; step++, x += kExactParts * kTileWords) {
      load_columns(step, 2);
      load_rows<kRowTiles>(x, 0);
      if (step > 0) {
        multiply<kRowTiles>();
      } else {
        multiply<kRowTiles>([&](auto sum) {
          if (large_ != nullptr) {
            store_large<sum>();
            if constexpr (kRowTiles == 1) store_large<sum + 2>();
          }
          load_or_zero<sum>(small);
        });
      }
      load_columns(step, 1);
      multiply<kRowTiles>();
      load_rows<kRowTiles>(x, 1);
      multiply<kRowTiles>();
      load_columns(step, 0);
      multiply<kRowTiles>();
      load_rows<kRowTiles>(x, 2);
      multiply<kRowTiles>();
    }
    large_ = sums_[tile / 2][kLarge];
    x = rows;
    for (int64_t step = 0; step < steps; step++, x += kExactParts * kTileWords) {
      load_columns(step, 0);
      load_rows<kRowTiles>(x, 0);
      if (step > 0) {
        multiply<kRowTiles>();
      } else {
        multiply<kRowTiles>([&](auto sum) {
          tile_store<sum>(small + sum * kTileWords, kTileRowBytes);
          load_or_zero<sum>(large_);
        });
      }
    }
  }

  // Adds the sums of both kinds to the output, or if this is the `first` slab to the bias.
  void write(int64_t half, bool first) {
    const auto size = static_cast<size_t>(columns(half)) * sizeof(float);
    const bool whole = columns(half) == kHalf;
    alignas(64) float bias[kHalf] = {}, partial[kHalf];
    if (call_.bias != nullptr) memcpy(bias, call_.bias + column(half), size);
    for (int64_t row = x_.row(); row < x_.row_end(); row++) {
      const int64_t r = row - x_.row(), tile = r % kPairRows / kAmxRows * 2;
      const auto sums_at = [&](Kind kind, int v) {
        return load<Vec>(sums_[r / kPairRows][kind] + (tile + v) * kTileWords +
                         r % kAmxRows * kAmxWords);
      };
      float* to = call_.out + row * call_.columns + column(half);
      float* at = whole ? to : partial;
      if (!whole && !first) memcpy(partial, to, size);
#pragma GCC unroll 2
      for (int v = 0; v < 2; v++) {
        const Vec before = load<Vec>((first ? bias : at) + v * kLanes);
        const Vec sum = before + (sums_at(kLarge, v) + sums_at(kSmall, v));
        seen_[half].sums.add(sum);
        store(at + v * kLanes, sum);
      }
      if (!whole) memcpy(to, partial, size);
    }
  }

  bool sums_are_finite(int64_t row, int64_t half) const {
    const float* sums = call_.out + row * call_.columns + column(half);
    bool finite = true;
    for (int64_t c = 0; c < columns(half); c++) finite &= sums[c] - sums[c] == 0.0f;
    return finite;
  }

  const PackedLinear& call_;
  const SplitRows& x_;
  Halves halves_;
  HalfSeen seen_[kMostHalves];
  SplitBlocks weight_;
  bool first_ = false;      // whether sums begin with this block
  float* large_ = nullptr;  // where those go that are in the tiles
  alignas(64) float sums_[kMostUnitPairs][2][4 * kTileWords];
};

}  // namespace
}  // namespace ingot::INGOT_LEVEL

#endif

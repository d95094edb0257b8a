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

constexpr int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }
constexpr int64_t least(int64_t a, int64_t b) { return a < b ? a : b; }
constexpr int64_t most(int64_t a, int64_t b) { return a < b ? b : a; }

// The next multiple of a cache line: a tile's row on two lines would be read twice.
inline uint32_t* aligned(uint32_t* words) {
  return reinterpret_cast<uint32_t*>((reinterpret_cast<uintptr_t>(words) + 63) / 64 * 64);
}

// Some rows of x as tiles [rows/16][steps][parts][16 rows][16 words], zero beyond x's rows and
// columns; a word holds the values of k and k + 16. Each thread splits the rows that it multiplies:
// to get them from another core's caches takes longer. The memory is the thread's.
class SplitRows {
 public:
  // Nothing is done where these rows are split.
  void split(const PackedLinear& call, int64_t row, int64_t row_end) {
    if (row == row_) return;
    static thread_local std::vector<uint32_t> space;  // kept: a step allocates nothing
    static thread_local std::vector<uint8_t> kept_fits;
    row_ = row;
    row_end_ = least(row_end, call.rows);
    steps_ = most(ceil_div(call.weight.depth, kStepDepth), 1);  // zeros, where K is 0
    const int64_t tiles = ceil_div(row_end_ - row_, kAmxRows);
    words_ = aligned(grown(space, tiles * tile_words() + kTileWords));
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

  uint32_t* words_;
  uint8_t* fits_;
  int64_t row_ = -1, row_end_, steps_;
};

// What the columns of half a panel, and their sums, tell of where they are to be computed.
struct HalfSeen {
  SetBits weights[2];
  LargestSize sums;

  bool weights_fit_tiles() const { return weights[0].fit_tiles() && weights[1].fit_tiles(); }
};

// A slab of half a panel, split into parts block by block: while one block is multiplied, the next
// is split, and the one behind that is fetched into L2.
class SplitBlocks {
 public:
  // The half's float of the slab's first k lies at `from`, and k have it up to `depth`; behind the
  // slab what lies at `next` is fetched.
  void begin(const float* from, int64_t depth, int64_t steps, const float* next, HalfSeen* seen) {
    from_ = from;
    next_ = next;
    depth_ = depth;
    steps_ = steps;
    step_ = block_steps_ = 0;
    seen_ = seen;
  }

  // Begins to split the next block, in so many shares.
  void begin_block(int64_t shares) {
    step_ += block_steps_;
    block_steps_ = least(steps_ - step_, kBlockSteps);
    shares_ = shares;
    row_ = owed_ = 0;
  }
  [[gnu::always_inline]] void split_share() {
    for (owed_ += block_steps_ * kAmxRows; owed_ >= shares_; owed_ -= shares_) split_row();
  }
  // Splits the rest, and turns to that block; its steps, of which there are none behind the last.
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

  void fetch(int64_t k) const {
    const int64_t left = steps_ * kStepDepth - k;
    const float* from = left > 0 ? from_ + k * kPanel : next_ - left * kPanel;
    __builtin_prefetch(from, 0, 2);
    __builtin_prefetch(from + kAmxWords, 0, 2);
  }

  [[gnu::always_inline]] void split_row() {
    alignas(64) static constexpr float kZeros[kHalf] = {};
    const int64_t step = row_ / kAmxRows, row = row_ % kAmxRows;
    const int64_t k = (step_ + step) * kStepDepth + row, other = k + kAmxRows;
    const float* low = k < depth_ ? from_ + k * kPanel : kZeros;
    const float* high = other < depth_ ? from_ + other * kPanel : kZeros;
    uint32_t* to = other_words_ + tile(step, 0, 0) + row * kAmxWords;
    fetch(k + kBlockSteps * kStepDepth);
    fetch(other + kBlockSteps * kStepDepth);
#pragma GCC unroll 2
    for (int v = 0; v < 2; v++) {
      const Vec a = load<Vec>(low + v * kLanes), b = load<Vec>(high + v * kLanes);
      seen_->weights[v].add(a, b);
      split(a, b, [&](int part, VecWord words) { store(to + tile(0, part, v), words); });
    }
    row_++;
  }

  const float* from_;
  const float* next_;
  int64_t depth_, steps_;
  int64_t step_, block_steps_;  // where the block that is split begins
  int64_t shares_, owed_, row_;
  HalfSeen* seen_;
  alignas(64) uint32_t space_[2][kBlockWords];
  uint32_t* words_ = space_[0];
  uint32_t* other_words_ = space_[1];
};

// Sums of up to 2 kMostUnitPairs tiles of rows and half a panel.
class FloatUnit {
 public:
  FloatUnit(const PackedLinear& call, const SplitRows& x) : call_(call), x_(x) {}

  // Adds a slab, which begins with step `first`, to the output. `next` is the half panel that comes
  // then.
  void add_slab(int64_t half, int64_t first, int64_t next, HalfSeen* seen) {
    const int64_t tiles = ceil_div(x_.row_end() - x_.row(), kAmxRows), k = first * kStepDepth;
    weight_.begin(half_panel(half) + k * kPanel, call_.weight.depth - k,
                  least(x_.steps() - first, kSlabSteps), half_panel(next), seen);
    weight_.begin_block(1);
    first_ = true;
    for (int64_t steps, step = first; (steps = weight_.turn()) > 0; step += steps) {
      weight_.begin_block(ceil_div(tiles, 2) * steps * kStepShares);
      for (int64_t tile = 0; tile + 2 <= tiles; tile += 2) multiply_tiles<2>(tile, step, steps);
      if (tiles % 2 == 1) multiply_tiles<1>(tiles - 1, step, steps);
      store_large<0>();
      store_large<1>();
      store_large<2>();
      store_large<3>();
      large_ = nullptr;
      first_ = false;
    }
    write(half, first == 0, &seen->sums);
  }

 private:
  enum Kind { kSmall, kLarge };

  const float* half_panel(int64_t half) const {
    return reinterpret_cast<const float*>(call_.weight.words) +
           half / 2 * call_.weight.panel_words() + half % 2 * kHalf;
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

  // Adds a block to one or two tiles of rows. Sums are stored, and others loaded, between products.
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
  void write(int64_t half, bool first, LargestSize* largest) const {
    const int64_t column = half * kHalf, columns = least(call_.columns - column, kHalf);
    alignas(64) float bias[kHalf] = {}, partial[kHalf];
    const auto size = static_cast<size_t>(columns) * sizeof(float);
    if (call_.bias != nullptr) memcpy(bias, call_.bias + column, size);
    for (int64_t row = x_.row(); row < x_.row_end(); row++) {
      const int64_t r = row - x_.row(), tile = r % kPairRows / kAmxRows * 2;
      const auto sums_at = [&](Kind kind, int v) {
        return load<Vec>(sums_[r / kPairRows][kind] + (tile + v) * kTileWords +
                         r % kAmxRows * kAmxWords);
      };
      float* to = call_.out + row * call_.columns + column;
      float* at = columns == kHalf ? to : partial;
      if (at == partial && !first) memcpy(partial, to, size);
#pragma GCC unroll 2
      for (int v = 0; v < 2; v++) {
        const Vec before = load<Vec>((first ? bias : at) + v * kLanes);
        const Vec sum = before + (sums_at(kLarge, v) + sums_at(kSmall, v));
        largest->add(sum);
        store(at + v * kLanes, sum);
      }
      if (at == partial) memcpy(to, partial, size);
    }
  }

  const PackedLinear& call_;
  const SplitRows& x_;
  SplitBlocks weight_;
  bool first_;              // whether sums begin with this block
  float* large_ = nullptr;  // where those go that are in the tiles
  alignas(64) float sums_[kMostUnitPairs][2][4 * kTileWords];
};

}  // namespace
}  // namespace ingot::INGOT_LEVEL

#endif

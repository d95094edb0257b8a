// linear with a bfloat16 weight by AMX's tiles, for any number of rows; x is rounded to bfloat16.
//
// A panel is what a tile multiplies by as it lies there: for 32 values of k, a step here, 16 rows
// of 64 words, each a pair of bfloat16. x is packed into tiles of 16 rows of a step.
//
// A unit is up to 256 rows of x, which L2 holds, times one panel, of which a block at a time stays
// in the L1 cache while the rows pass over it, 16 by 16: a step is one tile of x, four of the panel
// and four products. The sums of 16 rows live in tiles for a block, and in memory between blocks.
// Short blocks have to store sums often; longer ones leave no room for x in L1. A single tile of
// rows, as at decode, runs once through the whole panel, and the memory sets the pace.
//
// Sums are float32 in the tiles as in memory, so blocks do not change a bit: a row's result depends
// only on the row.
#pragma once

#include <type_traits>

#include "activated_sums.h"
#include "amx.h"
#include "dot_bf16.h"
#include "fetch_ahead.h"
#include "packed.h"
#include "shares.h"
#include "sizes.h"
#include "tile.h"
#include "workspace.h"

#if defined(INGOT_AMX)

namespace ingot::INGOT_LEVEL {
namespace {

constexpr int64_t kStepDepth = 2 * kAmxWords;      // values of k
constexpr int64_t kStepWords = kAmxRows * kPanel;  // of a panel: 4 KiB
constexpr int64_t kProducts = kPanel / kAmxWords;  // of a step
constexpr int64_t kFewTiles = 4;  // up to so many tiles of rows, memory sets the pace
constexpr int64_t kLeastUnitTiles = 4, kMostUnitTiles = 16;
constexpr int64_t kUnitsOfThread = 6;
constexpr int64_t kBlockSteps = 6;             // of a panel: 24 KiB, half of the L1 cache
constexpr int64_t kUnitValues = 3 << 18;       // of x, for a unit: 1.5 MiB, most of L2
constexpr int64_t kRowBytes = kPanel * 4;      // from row to row of a panel
constexpr int64_t kXRowBytes = kAmxWords * 4;  // and of a tile of x

// x as tiles [ceil(rows/16)][steps][tile_rows][16 words], zero beyond x's rows and columns.
struct XTiles {
  uint32_t* words;
  int64_t steps;
  int64_t tile_rows;  // 16; fewer if these are all rows

  int64_t step_words() const { return tile_rows * kAmxWords; }
  uint32_t* at(int64_t tile, int64_t step) const {
    return words + (tile * steps + step) * step_words();
  }
};

void pack_tile(const PackedLinear& call, const XTiles& x, int64_t tile) {
  const int64_t depth = call.weight.depth, row = tile * kAmxRows;
  for (int64_t step = 0; step < x.steps; step++) {
    const int64_t k = step * kStepDepth;
    uint32_t* to = x.at(tile, step);
    for (int64_t r = 0; r < x.tile_rows; r++, to += kAmxWords) {
      const int64_t count = row + r < call.rows ? least(depth - k, kStepDepth) : 0;
      if (count < kStepDepth) memset(to, 0, kXRowBytes);
      if (count > 0) to_pairs(call.x + (row + r) * call.x_stride + k, count, to);
    }
  }
}

// What is fetched into L2 between so many products, four of each step: what comes after the next
// `words` of a panel that is read as it is multiplied, or, `in_order`, the words themselves.
struct Fetch {
  const uint32_t* from;
  int64_t products;
  int64_t words;
  bool in_order;

  [[gnu::always_inline]] void product() {
    if (products-- <= 0) return;
    if (in_order) {
      for (int64_t i = 0; i < words; i += kAmxWords) __builtin_prefetch(from + i, 0, 2);
    } else {
      for (int64_t i = 0; i < words; i += kPanel) fetch_ahead(from + i);
    }
    from += words;
  }
};

// A panel as steps. The last is a copy where K ends in it: what stands behind may be no number.
class Steps {
 public:
  Steps(const PackedWeight& weight, int64_t panel)
      : words_(weight.words + panel * weight.panel_words()), whole_(weight.depth / kStepDepth) {
    const int64_t left = weight.panel_words() - whole_ * kStepWords;
    if (left == 0 && whole_ > 0) return;
    memcpy(last_, words_ + whole_ * kStepWords, static_cast<size_t>(left) * sizeof(uint32_t));
    memset(last_ + left, 0, static_cast<size_t>(kStepWords - left) * sizeof(uint32_t));
  }

  const uint32_t* at(int64_t step) const {
    return step < whole_ ? words_ + step * kStepWords : last_;
  }
  const uint32_t* behind(int64_t step) const { return words_ + step * kStepWords; }

 private:
  const uint32_t* words_;
  int64_t whole_;
  alignas(64) uint32_t last_[kStepWords];
};

// A tile's rows of 64 sums, `stride` bytes apart; 0: all rows are the same.
struct Sums {
  float* at;
  int64_t stride;

  template <int kTile>
  void load() const {
    tile_load<kTile>(at + kTile * kAmxWords, stride);
  }
  template <int kTile>
  void store() const {
    tile_store<kTile>(at + kTile * kAmxWords, stride);
  }
};

// Sums [16][64] in the tiles 0 to 3 += a tile of x times a step. Before a tile of sums is added to,
// `before` is called with its number.
template <typename Before>
[[gnu::always_inline]] inline void multiply_step(const uint32_t* x, const uint32_t* words,
                                                 Before before) {
  tile_load<4>(x, kXRowBytes);
  tile_load<5>(words, kRowBytes);
  before(std::integral_constant<int, 0>());
  tile_dot_bf16<0, 4, 5>();
  tile_load<6>(words + 16, kRowBytes);
  before(std::integral_constant<int, 1>());
  tile_dot_bf16<1, 4, 6>();
  tile_load<7>(words + 32, kRowBytes);
  before(std::integral_constant<int, 2>());
  tile_dot_bf16<2, 4, 7>();
  tile_load<5>(words + 48, kRowBytes);
  before(std::integral_constant<int, 3>());
  tile_dot_bf16<3, 4, 5>();
}

// The sums of a unit's rows and one panel, which are kept in `sums` [rows of whole tiles][64].
class Unit {
 public:
  Unit(const PackedLinear& call, const XTiles& x, int64_t row, int64_t row_end, int64_t panel,
       float* sums)
      : call_(call), x_(x), row_(row), row_end_(row_end), column_(panel * kPanel), sums_(sums) {
    columns_ = least(call.columns - column_, kPanel);
    if (call.bias == nullptr) return;
    memcpy(bias_, call.bias + column_, static_cast<size_t>(columns_) * sizeof(float));
  }

  int64_t panel() const { return column_ / kPanel; }
  int64_t tiles() const { return ceil_div(row_end_ - row_, kAmxRows); }

  // Adds the steps [begin, end) to all rows. A tile's sums are stored, and the next ones loaded,
  // between the products of the next one's first step: a product takes its time, and so does a
  // store, but they need not wait for each other.
  void multiply(const Steps& steps, int64_t begin, int64_t end, Fetch fetch) {
    Sums done = {nullptr, 0};
    for (int64_t tile = 0; tile < tiles(); tile++) {
      const uint32_t* x = x_.at(row_ / kAmxRows + tile, begin);
      const Sums from = begin == 0 ? Sums{bias_, 0} : partial(tile);
      multiply_step(x, steps.at(begin), [&](auto number) {
        if (done.at != nullptr) done.store<number>();
        from.load<number>();
        fetch.product();
      });
      for (int64_t step = begin + 1; step < end; step++) {
        x += x_.step_words();
        multiply_step(x, steps.at(step), [&](auto) { fetch.product(); });
      }
      done = end == x_.steps && whole(tile) ? output(tile) : partial(tile);
    }
    done.store<0>();
    done.store<1>();
    done.store<2>();
    done.store<3>();
  }

  // Writes what `multiply` could not write as whole tiles.
  void finish() {
    for (int64_t tile = 0; tile < tiles(); tile++) {
      if (whole(tile)) continue;
      const Sums from = partial(tile), to = output(tile);
      const int64_t rows = least(row_end_ - row_ - tile * kAmxRows, kAmxRows);
      for (int64_t r = 0; r < rows; r++) {
        memcpy(to.at + r * call_.columns, from.at + r * kPanel,
               static_cast<size_t>(columns_) * sizeof(float));
      }
    }
  }

 private:
  bool whole(int64_t tile) const {
    return columns_ == kPanel && row_ + tile * kAmxRows + x_.tile_rows <= call_.rows &&
           call_.activated.function == Activation::kNone;
  }
  Sums partial(int64_t tile) { return {sums_ + tile * kAmxRows * kPanel, kRowBytes}; }
  Sums output(int64_t tile) const {
    return {call_.out + (row_ + tile * kAmxRows) * call_.columns + column_, call_.columns * 4};
  }

  const PackedLinear& call_;
  const XTiles& x_;
  int64_t row_, row_end_, column_, columns_;
  float* sums_;
  alignas(64) float bias_[kPanel] = {};
};

// Adds up a unit.
//
// Of few tiles the first brings the panel from memory, ahead of itself. Many tiles take longer than
// memory does: each pass over a block fetches its share of the next one.
void sum_up(const PackedLinear& call, const XTiles& x, Unit* unit) {
  const Steps steps(call.weight, unit->panel());
  const int64_t tiles = unit->tiles();
  const int64_t blocks = tiles == 1 ? 1 : ceil_div(x.steps, kBlockSteps);
  for (int64_t block = 0; block < blocks; block++) {
    const int64_t begin = block * x.steps / blocks, end = (block + 1) * x.steps / blocks;
    const int64_t products = (end - begin) * kProducts, words = kStepWords / kProducts;
    const int64_t share = ceil_div(words / tiles, kAmxWords) * kAmxWords;
    Fetch fetch = {steps.behind(end), tiles * products, share, true};
    if (tiles <= kFewTiles) fetch = {steps.behind(begin), products, words, false};
    unit->multiply(steps, begin, end, fetch);
  }
}

// The rows from `row` to `row_end` of a panel's outputs.
void compute_unit(const PackedLinear& call, const XTiles& x, int64_t row, int64_t row_end,
                  int64_t panel) {
  constexpr int64_t kMostRows = kMostUnitTiles * kAmxRows;
  alignas(64) float sums[kMostRows * kPanel];
  const auto add = [&](int64_t of, float* to) {
    Unit unit(call, x, row, row_end, of, to);
    sum_up(call, x, &unit);
    return unit;
  };
  Unit unit = add(panel, sums);
  if (call.activated.function == Activation::kNone) return unit.finish();
  write_activated<kMostRows>(call, panel, row, row_end - row, sums, false,
                             [&](float* to) { add(panel + unit_panels(call), to); });
}

// Groups whose part of x fits L2.
Shares choose_shares(const PackedLinear& call, int64_t tiles) {
  const int64_t threads = omp_get_max_threads();
  const auto fits = [&](int64_t groups) {
    return ceil_div(tiles, groups) * kAmxRows * call.weight.depth <= kUnitValues &&
           groups * unit_panels(call) >= kUnitsOfThread * threads;
  };
  int64_t groups = ceil_div(tiles, kMostUnitTiles);
  while (tiles / (2 * groups) >= kLeastUnitTiles && !fits(groups)) groups *= 2;
  if (groups > threads) groups = ceil_div(groups, threads) * threads;
  return {tiles, unit_panels(call), groups, ceil_div(threads, groups)};
}

void run_tiles(const PackedLinear& whole) {
  if (whole.rows == 0) return;
  const int64_t tiles = ceil_div(whole.rows, kAmxRows);
  const int64_t steps = most(ceil_div(whole.weight.depth, kStepDepth), 1);  // zeros, where K is 0
  XTiles x = {nullptr, steps, least(whole.rows, kAmxRows)};
  const bool few = tiles <= kFewTiles;
  const int64_t sums = deferred_bytes(whole, few);
  const Workspace space(sums + tiles * x.steps * x.step_words() * int64_t{sizeof(uint32_t)});
  x.words = reinterpret_cast<uint32_t*>(space.as<char>() + sums);
  const Deferred deferred(whole, few, space.as<float>());
  const PackedLinear& call = deferred.product();
  const Shares shares = choose_shares(call, tiles);
  int64_t* taken = none_taken(shares.count());  // panels
  const int64_t work = call.rows * call.columns * call.weight.depth;
  const TileShape full, rows = {static_cast<uint8_t>(x.tile_rows), kXRowBytes};
  const TileShape shapes[kTiles] = {rows, rows, rows, rows, rows, full, full, full};
  if (tiles == 1) pack_tile(call, x, 0);
#pragma omp parallel if (work > kParallelWork)
  {
    const Tiles configured(shapes);
    if (tiles > 1) {
#pragma omp for schedule(static)
      for (int64_t tile = 0; tile < tiles; tile++) pack_tile(call, x, tile);
    }
    take_shares(taken, shares.count(), [&](int64_t share, int64_t i) {
      const int64_t panel = shares.first_panel(share) + i;
      if (panel >= shares.end_panel(share)) return false;
      compute_unit(call, x, shares.first_tile(share) * kAmxRows,
                   least(shares.end_tile(share) * kAmxRows, call.rows), panel);
      return true;
    });
    deferred.finish();
  }
}

}  // namespace
}  // namespace ingot::INGOT_LEVEL

#endif

// linear with a bfloat16 weight by AMX's tiles, for any number of rows; x is rounded to bfloat16.
//
// A panel is what a tile multiplies by as it lies there: for 32 values of k, a step here, 16 rows
// of 64 words, each a pair of bfloat16. x is packed into tiles of 16 rows of a step.
//
// A unit is up to 256 rows times one panel, through as much of K as L2 holds of these rows. Its
// products are made in two shapes, whose sums stay in tiles from the first step to the last:
//  - 16 rows times all 64 columns take a step as it lies in memory: five tiles are loaded for four
//    products. Decode is this alone, once through the panel, and the memory sets the pace.
//  - 32 rows times 32 columns: four tiles for four products. L2, from which they come, sets the
//    pace: half of what the tiles could multiply.
// Sums are float32 in the tiles as in memory, so neither shape nor part of K changes a bit: a row's
// result depends only on the row.
#pragma once

#include <omp.h>

#include "amx.h"
#include "dot_bf16.h"
#include "packed.h"
#include "tile.h"

#if defined(INGOT_AMX)

namespace ingot::INGOT_LEVEL {
namespace {

constexpr int64_t kStepDepth = 2 * kAmxWords;      // values of k
constexpr int64_t kStepWords = kAmxRows * kPanel;  // of a panel: 4 KiB
constexpr int64_t kFewTiles = 4;  // up to so many tiles of rows, memory sets the pace
constexpr int64_t kLeastUnitRows = 64, kMostUnitRows = 256;
constexpr int64_t kUnitsOfThread = 4;
constexpr int64_t kUnitValues = 1 << 19;       // of x, for a unit: 1 MiB, half of L2
constexpr int64_t kRowBytes = kPanel * 4;      // from row to row of a panel
constexpr int64_t kXRowBytes = kAmxWords * 4;  // and of a tile of x

constexpr int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }
constexpr int64_t least(int64_t a, int64_t b) { return a < b ? a : b; }

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

// The next multiple of a cache line: a tile's row on two lines would be read twice.
uint32_t* aligned(uint32_t* words) {
  return reinterpret_cast<uint32_t*>((reinterpret_cast<uintptr_t>(words) + 63) / 64 * 64);
}

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

// What is fetched into L2 while a step is multiplied: `words` from `from`, a line in so many.
struct Fetch {
  const uint32_t* from;
  int64_t words;
  int64_t stride;

  void step() {
    for (int64_t i = 0; i < words; i += stride) __builtin_prefetch(from + i, 0, 2);
    from += words;
  }
};

// Part of a panel: whole steps, one after the other, and then one more unless it is null.
struct Steps {
  const uint32_t* words;
  int64_t count;
  const uint32_t* last;

  template <typename Body>
  void each(Body body) const {
    for (int64_t s = 0; s < count; s++) body(s, words + s * kStepWords);
    if (last != nullptr) body(count, last);
  }
};

// Where sums begin and end; rows lie `stride` bytes apart, 0: all begin alike.
struct Sums {
  const float* from;
  int64_t from_stride;
  float* to;
  int64_t to_stride;
};

// sums [16][64] of one tile of x.
void multiply_16_rows(const uint32_t* x, int64_t x_step, const Steps& steps, const Sums& sums,
                      Fetch& fetch) {
  tile_load<0>(sums.from, sums.from_stride);
  tile_load<1>(sums.from + 16, sums.from_stride);
  tile_load<2>(sums.from + 32, sums.from_stride);
  tile_load<3>(sums.from + 48, sums.from_stride);
  steps.each([&](int64_t step, const uint32_t* words) {
    tile_load<4>(x + step * x_step, kXRowBytes);
    tile_load<5>(words, kRowBytes);
    tile_dot_bf16<0, 4, 5>();
    tile_load<6>(words + 16, kRowBytes);
    tile_dot_bf16<1, 4, 6>();
    tile_load<5>(words + 32, kRowBytes);
    tile_dot_bf16<2, 4, 5>();
    tile_load<6>(words + 48, kRowBytes);
    tile_dot_bf16<3, 4, 6>();
    fetch.step();
  });
  tile_store<0>(sums.to, sums.to_stride);
  tile_store<1>(sums.to + 16, sums.to_stride);
  tile_store<2>(sums.to + 32, sums.to_stride);
  tile_store<3>(sums.to + 48, sums.to_stride);
}

// sums [32][32 columns from `column`] of two tiles of x, `x_tile` apart.
void multiply_32_rows(const uint32_t* x, int64_t x_step, int64_t x_tile, const Steps& steps,
                      int64_t column, const Sums& sums, Fetch& fetch) {
  const auto lower = [](auto* rows, int64_t stride) { return rows + kAmxRows * stride / 4; };
  const float* from = sums.from + column;
  float* to = sums.to + column;
  tile_load<0>(from, sums.from_stride);
  tile_load<1>(from + 16, sums.from_stride);
  tile_load<2>(lower(from, sums.from_stride), sums.from_stride);
  tile_load<3>(lower(from, sums.from_stride) + 16, sums.from_stride);
  steps.each([&](int64_t step, const uint32_t* words) {
    tile_load<6>(words + column, kRowBytes);
    tile_load_once<4>(x + step * x_step, kXRowBytes);
    tile_dot_bf16<0, 4, 6>();
    tile_load<7>(words + column + 16, kRowBytes);
    tile_dot_bf16<1, 4, 7>();
    tile_load_once<5>(x + x_tile + step * x_step, kXRowBytes);
    tile_dot_bf16<2, 5, 6>();
    tile_dot_bf16<3, 5, 7>();
    fetch.step();
  });
  tile_store<0>(to, sums.to_stride);
  tile_store<1>(to + 16, sums.to_stride);
  tile_store<2>(lower(to, sums.to_stride), sums.to_stride);
  tile_store<3>(lower(to, sums.to_stride) + 16, sums.to_stride);
}

// What a unit writes: the output itself, or rows and columns of which only some are there.
class Outputs {
 public:
  Outputs(const PackedLinear& call, int64_t panel, bool begun)
      : call_(call), column_(panel * kPanel), begun_(begun) {
    columns_ = least(call.columns - column_, kPanel);
    if (call.bias == nullptr) return;
    memcpy(bias_, call.bias + column_, static_cast<size_t>(columns_) * sizeof(float));
  }

  // Calls body(sums) for `count` rows from `row`.
  template <typename Body>
  void each(int64_t row, int64_t count, Body body) {
    float* out = call_.out + row * call_.columns + column_;
    const int64_t stride = call_.columns * 4;
    const int64_t rows = least(call_.rows - row, count);
    if (rows == count && columns_ == kPanel) {
      return body(begun_ ? Sums{out, stride, out, stride} : Sums{bias_, 0, out, stride});
    }
    const auto bytes = static_cast<size_t>(columns_) * sizeof(float);
    for (int64_t r = 0; begun_ && r < rows; r++) {
      memcpy(edge_ + r * kPanel, out + r * call_.columns, bytes);
    }
    body(begun_ ? Sums{edge_, kRowBytes, edge_, kRowBytes} : Sums{bias_, 0, edge_, kRowBytes});
    for (int64_t r = 0; r < rows; r++) memcpy(out + r * call_.columns, edge_ + r * kPanel, bytes);
  }

 private:
  const PackedLinear& call_;
  int64_t column_, columns_;
  bool begun_;
  alignas(64) float bias_[kPanel] = {};
  alignas(64) float edge_[2 * kAmxRows * kPanel] = {};
};

// The steps [begin, end) of the rows from `row` to `row_end` times a panel.
//
// A core's own prefetcher is the best at a plain stream, so of few tiles the first brings the panel
// from memory, a step ahead of itself: one line in two, whose neighbour the CPU adds (Intel's
// optimization manual: the spatial prefetcher). Many tiles take longer than memory does: each pass
// over the panel fetches its share of what lies behind it, this thread's next.
void compute_unit(const PackedLinear& call, const XTiles& x, int64_t row, int64_t row_end,
                  int64_t panel, int64_t begin, int64_t end) {
  const uint32_t* words = call.weight.words + panel * call.weight.panel_words();
  const int64_t whole = call.weight.depth / kStepDepth;
  Steps steps = {words + begin * kStepWords, least(end, whole) - begin, nullptr};
  alignas(64) uint32_t last[kStepWords];
  if (end > whole) {  // the last step is not whole: what stands behind it may be no number
    const int64_t left = call.weight.panel_words() - whole * kStepWords;
    memcpy(last, words + whole * kStepWords, static_cast<size_t>(left) * sizeof(uint32_t));
    memset(last + left, 0, static_cast<size_t>(kStepWords - left) * sizeof(uint32_t));
    steps.last = last;
  }
  const int64_t x_step = x.step_words(), x_tile = x.steps * x_step;
  const int64_t tiles = ceil_div(row_end - row, kAmxRows);
  Outputs outputs(call, panel, begin > 0);
  Fetch fetch = {words + call.weight.panel_words() + begin * kStepWords,
                 ceil_div(kStepWords / tiles, kAmxWords) * kAmxWords, kAmxWords};
  if (tiles <= kFewTiles) fetch = {steps.words + kStepWords, kStepWords, 2 * kAmxWords};
  for (; row < row_end;) {
    const uint32_t* from = x.at(row / kAmxRows, begin);
    const bool single = tiles <= kFewTiles || row + kAmxRows >= row_end;
    const int64_t count = single ? x.tile_rows : 2 * kAmxRows;
    outputs.each(row, count, [&](const Sums& sums) {
      if (single) return multiply_16_rows(from, x_step, steps, sums, fetch);
      for (int64_t column = 0; column < kPanel; column += kPanel / 2) {
        multiply_32_rows(from, x_step, x_tile, steps, column, sums, fetch);
      }
    });
    if (tiles <= kFewTiles) fetch.words = 0;
    row += count;
  }
}

// As many as leave units for all threads.
int64_t choose_unit_rows(const PackedLinear& call) {
  const int64_t wanted = kUnitsOfThread * omp_get_max_threads();
  int64_t rows = kMostUnitRows;
  while (rows > kLeastUnitRows && ceil_div(call.rows, rows) * call.weight.panels < wanted) {
    rows /= 2;
  }
  return rows;
}

// Units of the same rows follow each other, so that a core's L2 keeps these rows of x. Where it
// cannot hold them for all of K, all units run through a part of K, then through the next.
void run_tiles(const PackedLinear& call) {
  if (call.rows == 0) return;
  static thread_local std::vector<uint32_t> space;  // kept: a step allocates nothing
  const int64_t tiles = ceil_div(call.rows, kAmxRows);
  XTiles x = {nullptr, ceil_div(call.weight.depth, kStepDepth), least(call.rows, kAmxRows)};
  x.words = aligned(grown(space, tiles * x.steps * x.step_words() + kAmxWords));
  const int64_t unit_rows = choose_unit_rows(call);
  const int64_t part = kUnitValues / least(call.rows, unit_rows) / kStepDepth;
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
    int64_t begin = 0;
    do {  // once, where K is 0
      const int64_t end = least(begin + part, x.steps);
#pragma omp for collapse(2) schedule(guided)
      for (int64_t row = 0; row < call.rows; row += unit_rows) {
        for (int64_t panel = 0; panel < call.weight.panels; panel++) {
          compute_unit(call, x, row, least(row + unit_rows, call.rows), panel, begin, end);
        }
      }
      begin = end;
    } while (begin < x.steps);
  }
}

}  // namespace
}  // namespace ingot::INGOT_LEVEL

#endif

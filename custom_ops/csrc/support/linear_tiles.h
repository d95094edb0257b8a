// linear with a bfloat16 weight by AMX's tiles, for any number of rows; x is rounded to bfloat16.
//
// A panel is what a tile multiplies by as it lies there: for 32 values of k, a step here, 16 rows
// of 64 words, each a pair of bfloat16. x is packed into tiles of 16 rows of a step.
//
// A unit is up to 256 rows times one panel. Its products are made in two shapes:
//  - 16 rows times all 64 columns take a step as it lies in memory: five tiles are loaded for four
//    products. Decode is this alone, once through the panel, and the memory sets the pace.
//  - 32 rows times 32 columns: four tiles for four products, which the loads keep up with where
//    two of them find the L1 cache and two L2. So a unit walks K in blocks of 8 steps: 32 columns
//    of a block (16 KiB) stay in L1 while the rows' tiles pass over them from L2.
// Sums are float32 in the tiles as in memory, so neither shape nor block changes a bit: a row's
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
constexpr int64_t kBlockSteps = 8;
constexpr int64_t kFewTiles = 4;  // up to so many tiles of rows, memory sets the pace
constexpr int64_t kLeastUnitRows = 64, kMostUnitRows = 256;
constexpr int64_t kUnitsOfThread = 4;
constexpr int64_t kUnitValues = 1 << 19;          // of x, for a unit: 1 MiB, half of L2
constexpr int64_t kRowBytes = kPanel * 4;         // from row to row of sums and of a panel
constexpr int64_t kXRowBytes = kAmxWords * 4;     // and of a tile of x
constexpr int64_t kTileSums = kAmxRows * kPanel;  // from a tile's sums to the next's

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
  const int64_t depth = call.weight.depth;
  for (int64_t r = 0; r < x.tile_rows; r++) {
    const int64_t row = tile * kAmxRows + r;
    for (int64_t step = 0; step < x.steps; step++) {
      uint32_t* to = x.at(tile, step) + r * kAmxWords;
      const int64_t k = step * kStepDepth;
      const int64_t count = row < call.rows ? least(depth - k, kStepDepth) : 0;
      if (count < kStepDepth) memset(to, 0, kXRowBytes);
      if (count > 0) to_pairs(call.x + row * call.x_stride + k, count, to);
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

// sums [16][64] += x [steps] of one tile * words [steps][64 columns].
void multiply_16_rows(const uint32_t* x, int64_t x_step, const uint32_t* words, int64_t steps,
                      float* sums, Fetch& fetch) {
  tile_load<0>(sums, kRowBytes);
  tile_load<1>(sums + 16, kRowBytes);
  tile_load<2>(sums + 32, kRowBytes);
  tile_load<3>(sums + 48, kRowBytes);
  for (int64_t s = 0; s < steps; s++, x += x_step, words += kStepWords) {
    tile_load<4>(x, kXRowBytes);
    tile_load<5>(words, kRowBytes);
    tile_dot_bf16<0, 4, 5>();
    tile_load<6>(words + 16, kRowBytes);
    tile_dot_bf16<1, 4, 6>();
    tile_load<5>(words + 32, kRowBytes);
    tile_dot_bf16<2, 4, 5>();
    tile_load<6>(words + 48, kRowBytes);
    tile_dot_bf16<3, 4, 6>();
    fetch.step();
  }
  tile_store<0>(sums, kRowBytes);
  tile_store<1>(sums + 16, kRowBytes);
  tile_store<2>(sums + 32, kRowBytes);
  tile_store<3>(sums + 48, kRowBytes);
}

// sums [32][32 of 64] += x [steps] of two tiles, `x_tile` apart * words [steps][32 of 64 columns].
void multiply_32_rows(const uint32_t* x, int64_t x_step, int64_t x_tile, const uint32_t* words,
                      int64_t steps, float* sums, Fetch& fetch) {
  tile_load<0>(sums, kRowBytes);
  tile_load<1>(sums + 16, kRowBytes);
  tile_load<2>(sums + kTileSums, kRowBytes);
  tile_load<3>(sums + kTileSums + 16, kRowBytes);
  for (int64_t s = 0; s < steps; s++, x += x_step, words += kStepWords) {
    tile_load<6>(words, kRowBytes);
    tile_load_once<4>(x, kXRowBytes);
    tile_dot_bf16<0, 4, 6>();
    tile_load<7>(words + 16, kRowBytes);
    tile_dot_bf16<1, 4, 7>();
    tile_load_once<5>(x + x_tile, kXRowBytes);
    tile_dot_bf16<2, 5, 6>();
    tile_dot_bf16<3, 5, 7>();
    fetch.step();
  }
  tile_store<0>(sums, kRowBytes);
  tile_store<1>(sums + 16, kRowBytes);
  tile_store<2>(sums + kTileSums, kRowBytes);
  tile_store<3>(sums + kTileSums + 16, kRowBytes);
}

// sums [tiles * 16][64] += x, from `tile` and `step`, * words [steps][64].
//
// A core's own prefetcher is the best at a plain stream, so of few tiles the first brings the block
// from memory, a step ahead of itself: one line in two, whose neighbour the CPU adds (Intel's
// optimization manual: the spatial prefetcher). Many tiles take longer than memory does: each pass
// over the block fetches its share of the block at `next`.
void multiply_block(const XTiles& x, int64_t tile, int64_t tiles, int64_t step,
                    const uint32_t* words, int64_t steps, float* sums, const uint32_t* next) {
  const int64_t x_step = x.step_words(), x_tile = x.steps * x_step;
  Fetch fetch = {next, ceil_div(kStepWords / tiles, kAmxWords) * kAmxWords, kAmxWords};
  int64_t first = 0;
  if (tiles <= kFewTiles) {
    fetch = {next, kStepWords, 2 * kAmxWords};
    multiply_16_rows(x.at(tile, step), x_step, words, steps, sums, fetch);
    fetch.words = 0;
    first = 1;
  }
  const int64_t odd = (tiles - first) % 2;
  for (int64_t column = 0; column < kPanel; column += kPanel / 2) {
    for (int64_t t = first; t < tiles - odd; t += 2) {
      multiply_32_rows(x.at(tile + t, step), x_step, x_tile, words + column, steps,
                       sums + t * kTileSums + column, fetch);
    }
  }
  if (odd != 0) {
    const int64_t t = tiles - 1;
    multiply_16_rows(x.at(tile + t, step), x_step, words, steps, sums + t * kTileSums, fetch);
  }
}

// The steps [begin, end) of `unit_rows` rows, or what is left of them from `row`, times a panel.
// What earlier steps summed is in the output.
void compute_unit(const PackedLinear& call, const XTiles& x, int64_t row, int64_t unit_rows,
                  int64_t panel, int64_t begin, int64_t end) {
  alignas(64) float sums[kMostUnitRows * kPanel];
  const int64_t rows = least(call.rows - row, unit_rows);
  const int64_t tile = row / kAmxRows, tiles = ceil_div(rows, kAmxRows);
  const int64_t column = panel * kPanel;
  const auto bytes = static_cast<size_t>(least(call.columns - column, kPanel)) * sizeof(float);
  float* out = call.out + row * call.columns + column;
  memset(sums, 0, static_cast<size_t>(tiles * kTileSums) * sizeof(float));
  const float* bias = call.bias != nullptr ? call.bias + column : nullptr;
  for (int64_t r = 0; r < rows; r++) {
    const float* from = begin > 0 ? out + r * call.columns : bias;
    if (from != nullptr) memcpy(sums + r * kPanel, from, bytes);
  }

  const uint32_t* words = call.weight.words + panel * call.weight.panel_words();
  const int64_t whole = call.weight.depth / kStepDepth, last = least(end, whole);
  const int64_t block = tiles == 1 ? last - begin : kBlockSteps;
  for (int64_t step = begin; step < last; step += block) {
    const int64_t steps = least(last - step, block);
    const uint32_t* from = words + step * kStepWords;
    const uint32_t* next = from + (tiles <= kFewTiles ? 1 : steps) * kStepWords;
    multiply_block(x, tile, tiles, step, from, steps, sums, next);
  }
  if (end > whole) {  // the last step is not whole: what stands behind it may be no number
    alignas(64) uint32_t padded[kStepWords] = {};
    const uint32_t* next = words + call.weight.panel_words();
    const uint32_t* from = words + whole * kStepWords;
    memcpy(padded, from, static_cast<size_t>(next - from) * sizeof(uint32_t));
    multiply_block(x, tile, tiles, whole, padded, 1, sums, next);
  }
  for (int64_t r = 0; r < rows; r++) memcpy(out + r * call.columns, sums + r * kPanel, bytes);
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
#pragma omp for collapse(2) schedule(dynamic, 1)
      for (int64_t row = 0; row < call.rows; row += unit_rows) {
        for (int64_t panel = 0; panel < call.weight.panels; panel++) {
          compute_unit(call, x, row, unit_rows, panel, begin, end);
        }
      }
      begin = end;
    } while (begin < x.steps);
  }
}

}  // namespace
}  // namespace ingot::INGOT_LEVEL

#endif

// linear with a bfloat16 weight, by AMX's tiles. x is rounded to bfloat16.
//
// A panel is what a tile multiplies by as it lies there: 16 words of 16 columns, for 32 values of
// k, the step here. x is packed into tiles of 16 rows of a step. Up to 16 rows meet all four column
// tiles of a step at once, and the memory sets the pace. Of more, 32 rows meet 32 columns: four
// tiles are loaded for four products, which take as long if two of the loads find L1 and two L2. So
// a unit is up to 256 rows times a panel, and walks K in blocks of 8 steps: the block's 32 columns
// (16 KiB) stay in L1 while the rows pass over them from L2, and part of the next block is fetched
// at every step. Where 256 rows of all K would not fit L2, the units run through part of K at a
// time and sums wait in the output.
//
// Sums stay in float32, so where a block ends changes no bit: a row's result depends on neither the
// unit nor the rows beside it.
#pragma once

#include <omp.h>

#include "amx.h"
#include "dot_bf16.h"
#include "packed.h"
#include "tile.h"

#if defined(INGOT_AMX)

namespace ingot::INGOT_LEVEL {
namespace {

constexpr int64_t kStepDepth = 2 * kAmxWords;          // of k
constexpr int64_t kStepWords = kAmxRows * kPanel;      // of a panel
constexpr int64_t kBlockSteps = 8;
constexpr int64_t kLeastUnitRows = 64, kMostUnitRows = 256;
constexpr int64_t kUnitsOfThread = 4;
constexpr int64_t kUnitOfX = 1 << 20;         // bytes of x that a unit reads: half of L2
constexpr int64_t kFewRowsAhead = 2;          // steps
constexpr int64_t kSumsStride = kPanel * sizeof(float);
constexpr int64_t kWorthThreads = 1 << 15;  // multiplications

constexpr int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

// x as tiles [ceil(rows/16)][steps][tile_rows][16 words], zero beyond x's rows and columns.
struct XTiles {
  uint32_t* words;
  int64_t steps;
  int64_t tile_rows;  // 16, or all of fewer

  int64_t step_words() const { return tile_rows * kAmxWords; }
  uint32_t* tile(int64_t tile) const { return words + tile * steps * step_words(); }
};

// The next multiple of a cache line: a tile's row that lies on two lines is loaded twice.
uint32_t* aligned(uint32_t* words) {
  return reinterpret_cast<uint32_t*>((reinterpret_cast<uintptr_t>(words) + 63) / 64 * 64);
}

void pack_tile(const PackedLinear& call, const XTiles& x, int64_t tile) {
  const int64_t row = tile * kAmxRows, depth = call.weight.depth;
  for (int64_t r = 0; r < x.tile_rows; r++) {
    const float* from = call.x + (row + r) * call.x_stride;
    uint32_t* to = x.tile(tile) + r * kAmxWords;
    for (int64_t k = 0; k < depth; k += kStepDepth, to += x.step_words()) {
      const int64_t count = row + r >= call.rows ? 0 : depth - k < kStepDepth ? depth - k : kStepDepth;
      if (count < kStepDepth) memset(to, 0, kAmxWords * sizeof(uint32_t));
      to_pairs(from + k, count, to);
    }
  }
}

// What a block fetches for the next one, so many bytes at each step.
struct Fetch {
  const char* from;
  int64_t bytes;

  // Of two neighbouring lines that start at a multiple of 128 bytes, the second follows the first
  // (Intel's optimization manual: the spatial prefetcher of L2).
  void step() {
    for (int64_t i = 0; i < bytes; i += 128) __builtin_prefetch(from + i, 0, 2);
    from += bytes;
  }
};

// sums [16][64] += x [16][steps] * words [steps][64 columns].
[[gnu::noinline]] void multiply_16_rows(const XTiles& x, const uint32_t* tile,
                                        const uint32_t* words, int64_t steps, float* sums,
                                        Fetch& fetch) {
  tile_load<0>(sums, kSumsStride);
  tile_load<1>(sums + 16, kSumsStride);
  tile_load<2>(sums + 32, kSumsStride);
  tile_load<3>(sums + 48, kSumsStride);
  for (int64_t s = 0; s < steps; s++, tile += x.step_words(), words += kStepWords) {
    tile_load<4>(tile, kAmxWords * sizeof(uint32_t));
    tile_load<5>(words, kSumsStride);
    tile_dot_bf16<0, 4, 5>();
    tile_load<6>(words + 16, kSumsStride);
    tile_dot_bf16<1, 4, 6>();
    tile_load<7>(words + 32, kSumsStride);
    tile_dot_bf16<2, 4, 7>();
    tile_load<5>(words + 48, kSumsStride);
    tile_dot_bf16<3, 4, 5>();
    fetch.step();
  }
  tile_store<0>(sums, kSumsStride);
  tile_store<1>(sums + 16, kSumsStride);
  tile_store<2>(sums + 32, kSumsStride);
  tile_store<3>(sums + 48, kSumsStride);
}

// sums [32][32 of 64] += x [two tiles][steps] * words [steps][32 of 64 columns].
[[gnu::noinline]] void multiply_32_rows(const XTiles& x, const uint32_t* tile,
                                        const uint32_t* words, int64_t steps, float* sums,
                                        Fetch& fetch) {
  float* lower = sums + kAmxRows * kPanel;
  const uint32_t* next_tile = tile + x.steps * x.step_words();
  tile_load<0>(sums, kSumsStride);
  tile_load<1>(sums + 16, kSumsStride);
  tile_load<2>(lower, kSumsStride);
  tile_load<3>(lower + 16, kSumsStride);
  for (int64_t s = 0; s < steps; s++, words += kStepWords) {
    tile_load<6>(words, kSumsStride);
    tile_load_once<4>(tile + s * x.step_words(), kAmxWords * sizeof(uint32_t));
    tile_dot_bf16<0, 4, 6>();
    tile_load<7>(words + 16, kSumsStride);
    tile_dot_bf16<1, 4, 7>();
    tile_load_once<5>(next_tile + s * x.step_words(), kAmxWords * sizeof(uint32_t));
    tile_dot_bf16<2, 5, 6>();
    tile_dot_bf16<3, 5, 7>();
    fetch.step();
  }
  tile_store<0>(sums, kSumsStride);
  tile_store<1>(sums + 16, kSumsStride);
  tile_store<2>(lower, kSumsStride);
  tile_store<3>(lower + 16, kSumsStride);
}

// sums [tiles * 16][64] += x [tiles][steps from `step`] * words [steps][64].
void multiply_block(const XTiles& x, int64_t tile, int64_t tiles, int64_t step,
                    const uint32_t* words, int64_t steps, float* sums) {
  const auto* bytes = reinterpret_cast<const char*>(words);
  constexpr int64_t kStepBytes = kStepWords * sizeof(uint32_t);
  const auto at = [&](int64_t t) { return x.tile(tile + t) + step * x.step_words(); };
  if (tiles == 1) {
    Fetch fetch = {bytes + kFewRowsAhead * kStepBytes, kStepBytes};
    return multiply_16_rows(x, at(0), words, steps, sums, fetch);
  }
  Fetch fetch = {bytes + steps * kStepBytes, ceil_div(kStepBytes / tiles, 128) * 128};
  for (int64_t column = 0; column < kPanel; column += kPanel / 2) {
    for (int64_t t = 0; t + 2 <= tiles; t += 2) {
      multiply_32_rows(x, at(t), words + column, steps, sums + t * kAmxRows * kPanel + column,
                       fetch);
    }
  }
  if (tiles % 2 == 1) {
    multiply_16_rows(x, at(tiles - 1), words, steps, sums + (tiles - 1) * kAmxRows * kPanel, fetch);
  }
}

// Rows from `row` times a panel, for the steps from `first` to `end`.
void compute_unit(const PackedLinear& call, const XTiles& x, int64_t row, int64_t unit_rows,
                  int64_t panel, int64_t first, int64_t end) {
  alignas(64) float sums[kMostUnitRows * kPanel];
  alignas(64) float begin[kPanel] = {};
  const int64_t rows = call.rows - row < unit_rows ? call.rows - row : unit_rows;
  const int64_t tiles = ceil_div(rows, kAmxRows);
  const int64_t column = panel * kPanel;
  const int64_t columns = call.columns - column < kPanel ? call.columns - column : kPanel;
  const size_t bytes = static_cast<size_t>(columns) * sizeof(float);
  float* out = call.out + row * call.columns + column;
  if (call.bias != nullptr) memcpy(begin, call.bias + column, bytes);
  for (int64_t r = 0; r < tiles * kAmxRows; r++) {
    const bool begun = first > 0 && r < rows;
    memcpy(sums + r * kPanel, begin, sizeof(begin));
    if (begun) memcpy(sums + r * kPanel, out + r * call.columns, bytes);
  }

  const uint32_t* words = call.weight.words + panel * call.weight.panel_words();
  const int64_t whole = call.weight.depth / kStepDepth;
  const int64_t last = end < whole ? end : whole;
  const int64_t block = tiles == 1 ? last - first : kBlockSteps;
  for (int64_t step = first; step < last; step += block) {
    const int64_t steps = last - step < block ? last - step : block;
    multiply_block(x, row / kAmxRows, tiles, step, words + step * kStepWords, steps, sums);
  }
  if (end > whole) {  // the last step is not a whole one
    alignas(64) uint32_t padded[kStepWords] = {};
    const int64_t left = call.weight.panel_words() - whole * kStepWords;
    memcpy(padded, words + whole * kStepWords, static_cast<size_t>(left) * sizeof(uint32_t));
    multiply_block(x, row / kAmxRows, tiles, whole, padded, 1, sums);
  }
  for (int64_t r = 0; r < rows; r++) memcpy(out + r * call.columns, sums + r * kPanel, bytes);
}

int64_t choose_unit_rows(const PackedLinear& call) {
  int64_t rows = kMostUnitRows;
  const int64_t wanted = kUnitsOfThread * omp_get_max_threads();
  while (rows > kLeastUnitRows && ceil_div(call.rows, rows) * call.weight.panels < wanted) rows /= 2;
  return rows;
}

void run_tiles(const PackedLinear& call) {
  static thread_local std::vector<uint32_t> space;  // kept: a step allocates nothing
  const int64_t tiles = ceil_div(call.rows, kAmxRows);
  XTiles x = {nullptr, ceil_div(call.weight.depth, kStepDepth), tiles == 1 ? call.rows : kAmxRows};
  x.words = aligned(grown(space, tiles * x.steps * x.step_words() + kAmxWords));
  const int64_t unit_rows = choose_unit_rows(call);
  const int64_t part_rows = call.rows < unit_rows ? call.rows : unit_rows;
  const int64_t part = kUnitOfX / 2 / (part_rows > 0 ? part_rows : 1) / kStepDepth;
  const int64_t work = call.rows * call.columns * call.weight.depth;
  const TileShape few = {static_cast<uint8_t>(x.tile_rows), kAmxWords * 4}, full;
  const TileShape shapes[kTiles] = {few, few, few, few, few, tiles == 1 ? full : few, full, full};
  if (tiles == 1) pack_tile(call, x, 0);
#pragma omp parallel if (work > kWorthThreads)
  {
    const Tiles configured(shapes);
    if (tiles > 1) {
#pragma omp for schedule(static)
      for (int64_t tile = 0; tile < tiles; tile++) pack_tile(call, x, tile);
    }
    int64_t first = 0;
    do {
      const int64_t end = x.steps - first < part ? x.steps : first + part;
#pragma omp for collapse(2) schedule(dynamic, 1)
      for (int64_t row = 0; row < call.rows; row += unit_rows) {
        for (int64_t panel = 0; panel < call.weight.panels; panel++) {
          compute_unit(call, x, row, unit_rows, panel, first, end);
        }
      }
      first += part;
    } while (first < x.steps);
  }
}

}  // namespace
}  // namespace ingot::INGOT_LEVEL

#endif

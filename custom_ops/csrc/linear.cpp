// linear: x times a packed matrix, summed in float32; see custom_ops/linear.py.
//
// A unit of work is 48 rows of x times one panel of 64 output columns. Inside it, k runs in blocks
// of 64 whose sums are added up: the panel's block (16 KiB) stays in the L1 cache while all rows
// pass over it, and the rounding error grows with 64 + K/64 terms, not K. Every output is summed in
// the same order whatever the other rows are: a sequence's result does not depend on its batch.
#include "ops.h"
#include "packed.h"
#include "vec.h"

namespace ingot::INGOT_LEVEL {
namespace {

constexpr int64_t kRowBlock = 48;
constexpr int64_t kDepthBlock = 64;
constexpr int kLineWords = 16;              // 32-bit words in a cache line
constexpr int64_t kPrefetchWords = 1024;    // 4 KiB ahead
constexpr int64_t kParallelWork = 1 << 15;  // multiplications worth waking the other threads for
constexpr int kTileRows = kLanes == 4 ? 4 : 6;

// Vectors of columns that a tile of `rows` rows holds in registers (32 at AVX-512, else 16).
constexpr int tile_vectors(int rows) {
  if (kLanes == 16) return 4;
  return rows == 1 ? 8 : rows == 2 ? 4 : 2;
}

struct Float32 {
  static constexpr int kStep = 1;  // values of k in a word
  static void unpack(VecWord words, Vec* values) { values[0] = bit_cast<Vec>(words); }
};

struct Bfloat16 {
  static constexpr int kStep = 2;
  static void unpack(VecWord words, Vec* values) {
    values[0] = bit_cast<Vec>(words << 16);
    values[1] = bit_cast<Vec>(words & 0xffff0000u);
  }
};

// acc[row][v] += x[row][0..kCount) times the row of the panel that holds these k.
template <typename Format, int kCount, int kRows, int kVectors>
[[gnu::always_inline]] inline void multiply_step(const float* x, int64_t x_stride,
                                                 const uint32_t* words,
                                                 Vec (&acc)[kRows][kVectors]) {
  Vec w[kVectors][Format::kStep];
#pragma GCC unroll 8
  for (int v = 0; v < kVectors; v++) Format::unpack(load<VecWord>(words + v * kLanes), w[v]);
#pragma GCC unroll 2
  for (int s = 0; s < kCount; s++) {
#pragma GCC unroll 6
    for (int row = 0; row < kRows; row++) {
      const Vec value = broadcast(x[row * x_stride + s]);
#pragma GCC unroll 8
      for (int v = 0; v < kVectors; v++) acc[row][v] += value * w[v][s];
    }
  }
}

// sums [kRows][64] += x [kRows][depth] * panel [depth][64], for one block of k. The first to pass
// over a block fetches what follows it in memory (kFetch). Not inlined: the compiler would keep the
// sums in memory.
template <typename Format, int kRows, bool kFetch>
[[gnu::noinline]] void multiply_tile(const float* x, int64_t x_stride, const uint32_t* panel,
                                     int64_t depth, float* sums) {
  constexpr int kVectors = tile_vectors(kRows);
  constexpr int kStep = Format::kStep;
  for (int64_t column = 0; column < kPanel; column += kVectors * kLanes) {
    Vec acc[kRows][kVectors] = {};
    const uint32_t* words = panel + column;
    int64_t k = 0;
    for (; k + kStep <= depth; k += kStep, words += kPanel) {
#pragma GCC unroll 4
      for (int v = 0; kFetch && v < kVectors * kLanes; v += kLineWords) {
        __builtin_prefetch(words + v + kPrefetchWords);
      }
      multiply_step<Format, kStep>(x + k, x_stride, words, acc);
    }
    if (k < depth) multiply_step<Format, 1>(x + k, x_stride, words, acc);
#pragma GCC unroll 6
    for (int row = 0; row < kRows; row++) {
#pragma GCC unroll 8
      for (int v = 0; v < kVectors; v++) {
        float* sum = sums + row * kPanel + column + v * kLanes;
        store(sum, load<Vec>(sum) + acc[row][v]);
      }
    }
  }
}

// The same for any number of rows from `row`: whole tiles, then the rest.
template <typename Format, bool kFetch>
void multiply_rows(const float* x, int64_t x_stride, int64_t row, int64_t rows,
                   const uint32_t* panel, int64_t depth, float* sums) {
  for (; row + kTileRows <= rows; row += kTileRows) {
    multiply_tile<Format, kTileRows, kFetch>(x + row * x_stride, x_stride, panel, depth,
                                             sums + row * kPanel);
  }
  for (; row + 2 <= rows; row += 2) {
    multiply_tile<Format, 2, kFetch>(x + row * x_stride, x_stride, panel, depth,
                                     sums + row * kPanel);
  }
  if (row < rows) {
    multiply_tile<Format, 1, kFetch>(x + row * x_stride, x_stride, panel, depth,
                                     sums + row * kPanel);
  }
}

// One block of k for all rows of a unit.
template <typename Format>
void multiply_block(const float* x, int64_t x_stride, int64_t rows, const uint32_t* words,
                    int64_t depth, float* sums) {
  const int64_t first = rows < kTileRows ? rows : kTileRows;
  multiply_rows<Format, true>(x, x_stride, 0, first, words, depth, sums);
  multiply_rows<Format, false>(x, x_stride, first, rows, words, depth, sums);
}

struct Linear {
  const float* x;
  int64_t x_stride;
  PackedWeight weight;
  const float* bias;  // or null
  float* out;
  int64_t rows;
  int64_t columns;
};

template <typename Format>
void compute_unit(const Linear& call, int64_t panel, int64_t row) {
  alignas(64) float sums[kRowBlock * kPanel];
  const int64_t rows = call.rows - row < kRowBlock ? call.rows - row : kRowBlock;
  const int64_t column = panel * kPanel;
  const int64_t columns = call.columns - column < kPanel ? call.columns - column : kPanel;
  for (int64_t c = 0; c < kPanel; c++) {
    sums[c] = call.bias != nullptr && c < columns ? call.bias[column + c] : 0.0f;
  }
  for (int64_t r = 1; r < rows; r++) memcpy(sums + r * kPanel, sums, kPanel * sizeof(float));

  const uint32_t* words = call.weight.words + panel * call.weight.panel_words();
  for (int64_t k = 0; k < call.weight.depth; k += kDepthBlock) {
    const int64_t left = call.weight.depth - k;
    multiply_block<Format>(call.x + row * call.x_stride + k, call.x_stride, rows,
                           words + k / Format::kStep * kPanel,
                           left < kDepthBlock ? left : kDepthBlock, sums);
  }
  for (int64_t r = 0; r < rows; r++) {
    memcpy(call.out + (row + r) * call.columns + column, sums + r * kPanel,
           columns * sizeof(float));
  }
}

template <typename Format>
void run(const Linear& call) {
  const int64_t work = call.rows * call.columns * call.weight.depth;
#pragma omp parallel for collapse(2) schedule(dynamic, 1) if (work > kParallelWork)
  for (int64_t panel = 0; panel < call.weight.panels; panel++) {
    for (int64_t row = 0; row < call.rows; row += kRowBlock) {
      compute_unit<Format>(call, panel, row);
    }
  }
}

}  // namespace

void linear(const DLTensor* x, const DLTensor* weight, const DLTensor* bias, int64_t out_features,
            DLTensor* out0) {
  expect(x, "x", kFloat32, {-1, -1});
  expect_contiguous(x, "x", 1);
  const PackedWeight packed = packed_weight(weight, x->shape[1]);
  if (out_features < 0 || packed.panels != (out_features + kPanel - 1) / kPanel) {
    fail("out_features is %lld, but the packed weight has %lld panels of 64",
         static_cast<long long>(out_features), static_cast<long long>(packed.panels));
  }
  if (bias != nullptr) {
    expect(bias, "bias", kFloat32, {out_features});
    expect_contiguous(bias, "bias", 1);
  }
  if (wants_shape(out0, kFloat32, {x->shape[0], out_features})) return;
  const Linear call{.x = data_of<const float>(x),
                    .x_stride = x->strides[0],
                    .weight = packed,
                    .bias = bias != nullptr ? data_of<const float>(bias) : nullptr,
                    .out = data_of<float>(out0),
                    .rows = x->shape[0],
                    .columns = out_features};
  packed.step == 1 ? run<Float32>(call) : run<Bfloat16>(call);
}

}  // namespace ingot::INGOT_LEVEL

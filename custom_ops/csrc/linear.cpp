// linear: x times a packed matrix, summed in float32; see custom_ops/linear.py.
//
// A unit of work is 48 rows of x times one panel of 64 output columns. Inside it, k runs in blocks
// of 64 whose sums are added up: the panel's block (16 KiB) stays in the L1 cache while all rows
// pass over it, and the rounding error grows with 64 + K/64 terms, not K. Every output is summed in
// the same order whatever the other rows are: a sequence's result does not depend on its batch.
//
// Few rows of x are read where they lie, and the panels set the pace. Many are packed first: rows
// that lie K floats apart are a page each, and share few cache sets.
#include <vector>

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

// A tile's rows of x, one after the other.
struct Rows {
  const float* x;
  int64_t stride;

  float at(int row, int64_t k) const { return x[row * stride + k]; }
  Rows from(int row) const { return {x + row * stride, stride}; }
};

// The same as [K][kTileRows].
struct PackedRows {
  const float* x;

  float at(int row, int64_t k) const { return x[k * kTileRows + row]; }
  PackedRows from(int row) const { return {x + row}; }
};

// acc[row][v] += x[row][k .. k + kCount) times the row of the panel that holds these k.
template <typename Format, int kCount, int kRows, int kVectors, typename X>
[[gnu::always_inline]] inline void multiply_step(X x, int64_t k, const uint32_t* words,
                                                 Vec (&acc)[kRows][kVectors]) {
  Vec w[kVectors][Format::kStep];
#pragma GCC unroll 8
  for (int v = 0; v < kVectors; v++) Format::unpack(load<VecWord>(words + v * kLanes), w[v]);
#pragma GCC unroll 2
  for (int s = 0; s < kCount; s++) {
#pragma GCC unroll 6
    for (int row = 0; row < kRows; row++) {
      const Vec value = broadcast(x.at(row, k + s));
#pragma GCC unroll 8
      for (int v = 0; v < kVectors; v++) acc[row][v] += value * w[v][s];
    }
  }
}

// sums [kRows][64] += x [kRows][depth] * panel [depth][64], for one block of k. The first to pass
// over a block fetches what follows it in memory (kFetch). Not inlined: the compiler would keep the
// sums in memory.
template <typename Format, int kRows, bool kFetch, typename X>
[[gnu::noinline]] void multiply_tile(X x, const uint32_t* panel, int64_t depth, float* sums) {
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
      multiply_step<Format, kStep>(x, k, words, acc);
    }
    if (k < depth) multiply_step<Format, 1>(x, k, words, acc);
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

// The same for any number of rows up to a tile's.
template <typename Format, bool kFetch, typename X>
void multiply_rows(X x, int64_t rows, const uint32_t* panel, int64_t depth, float* sums) {
  if (rows == kTileRows) return multiply_tile<Format, kTileRows, kFetch>(x, panel, depth, sums);
  for (; rows >= 2; rows -= 2, x = x.from(2), sums += 2 * kPanel) {
    multiply_tile<Format, 2, kFetch>(x, panel, depth, sums);
  }
  if (rows == 1) multiply_tile<Format, 1, kFetch>(x, panel, depth, sums);
}

struct Linear {
  const float* x;
  int64_t x_stride;
  const float* packed;  // x as tiles [K][kTileRows], or null
  PackedWeight weight;
  const float* bias;  // or null
  float* out;
  int64_t rows;
  int64_t columns;
};

// A block of k, [depth][64], as float32.
void unpack_block(const uint32_t* words, int64_t depth, float* to) {
  for (int64_t k = 0; k < depth; k += Bfloat16::kStep) {
    for (int64_t column = 0; column < kPanel; column += kLanes, words += kLanes, to += kLanes) {
      if (column % kLineWords == 0) __builtin_prefetch(words + kPrefetchWords);
      Vec values[2];
      Bfloat16::unpack(load<VecWord>(words), values);
      store(to, values[0]);
      store(to + kPanel, values[1]);
    }
    to += kPanel;
  }
}

// One block of k for the rows of a unit, from `row`.
template <typename Format>
void multiply_block(const Linear& call, int64_t row, int64_t rows, int64_t k, const uint32_t* words,
                    int64_t depth, float* sums) {
  if (call.packed == nullptr) {
    const Rows x = {call.x + row * call.x_stride + k, call.x_stride};
    return multiply_rows<Format, true>(x, rows, words, depth, sums);
  }
  alignas(64) float unpacked[kDepthBlock * kPanel];
  if (Format::kStep == 2) unpack_block(words, depth, unpacked);
  const auto* block = Format::kStep == 2 ? reinterpret_cast<const uint32_t*>(unpacked) : words;
  for (int64_t r = 0; r < rows; r += kTileRows) {
    const PackedRows x = {call.packed + (row + r) * call.weight.depth + k * kTileRows};
    const int64_t left = rows - r < kTileRows ? rows - r : kTileRows;
    if (Format::kStep == 1 && r == 0) {
      multiply_rows<Float32, true>(x, left, block, depth, sums);
    } else {
      multiply_rows<Float32, false>(x, left, block, depth, sums + r * kPanel);
    }
  }
}

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
    multiply_block<Format>(call, row, rows, k, words + k / Format::kStep * kPanel,
                           left < kDepthBlock ? left : kDepthBlock, sums);
  }
  for (int64_t r = 0; r < rows; r++) {
    memcpy(call.out + (row + r) * call.columns + column, sums + r * kPanel,
           columns * sizeof(float));
  }
}

// Tiles [K][kTileRows] of x; rows beyond the last stay what they were.
void pack_tile(const Linear& call, int64_t row, float* to) {
  const float* x = call.x + row * call.x_stride;
  const int64_t rows = call.rows - row < kTileRows ? call.rows - row : kTileRows;
  if (rows == kTileRows) {
    for (int64_t k = 0; k < call.weight.depth; k++) {
#pragma GCC unroll 6
      for (int r = 0; r < kTileRows; r++) to[k * kTileRows + r] = x[r * call.x_stride + k];
    }
    return;
  }
  for (int64_t k = 0; k < call.weight.depth; k++) {
    for (int64_t r = 0; r < rows; r++) to[k * kTileRows + r] = x[r * call.x_stride + k];
  }
}

template <typename Format>
void run(Linear& call) {
  static thread_local std::vector<float> packed;  // kept: a step allocates nothing
  const int64_t tiles = (call.rows + kTileRows - 1) / kTileRows;
  const int64_t tile_floats = call.weight.depth * kTileRows;
  if (tiles > 1) {
    if (packed.size() < static_cast<size_t>(tiles * tile_floats)) {
      packed = {};  // what is there need not be copied
      packed.resize(tiles * tile_floats);
    }
    call.packed = packed.data();
  }
  float* to = packed.data();
  const int64_t work = call.rows * call.columns * call.weight.depth;
#pragma omp parallel if (work > kParallelWork)
  {
    if (tiles > 1) {
#pragma omp for schedule(static)
      for (int64_t tile = 0; tile < tiles; tile++) {
        pack_tile(call, tile * kTileRows, to + tile * tile_floats);
      }
    }
#pragma omp for collapse(2) schedule(dynamic, 1)
    for (int64_t panel = 0; panel < call.weight.panels; panel++) {
      for (int64_t row = 0; row < call.rows; row += kRowBlock) {
        compute_unit<Format>(call, panel, row);
      }
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
  Linear call{.x = data_of<const float>(x),
              .x_stride = x->strides[0],
              .packed = nullptr,
              .weight = packed,
              .bias = bias != nullptr ? data_of<const float>(bias) : nullptr,
              .out = data_of<float>(out0),
              .rows = x->shape[0],
              .columns = out_features};
  packed.step == 1 ? run<Float32>(call) : run<Bfloat16>(call);
}

}  // namespace ingot::INGOT_LEVEL

// linear: x times a packed matrix, summed in float32; see custom_ops/linear.py.
//
// A unit of work is up to 96 rows of x times one panel of 64 output columns. Inside it, k runs in
// blocks of 64 whose sums are added up: the panel's block (16 KiB) stays in the L1 cache while all
// rows pass over it, and the rounding error grows with 64 + K/64 terms, not K. Every output is
// summed in the same order whatever the other rows are: a sequence's result does not depend on its
// batch.
//
// Few rows of x are read where they lie, and the panels set the pace. Many are packed first: rows
// that lie K floats apart are a page each, and share few cache sets. At the level that multiplies
// bfloat16, x is rounded to it where the weight is bfloat16, for any number of rows; at the level
// with tiles of bfloat16, support/linear_tiles.h has these weights.
#include "linear.h"

#include <omp.h>

#include <type_traits>

#include "activated_sums.h"
#include "dot_bf16.h"
#include "fetch_ahead.h"
#include "linear_tiles.h"
#include "ops.h"
#include "packed.h"
#include "shares.h"
#include "sizes.h"
#include "tile.h"
#include "workspace.h"

namespace ingot::INGOT_LEVEL {
namespace {

constexpr int64_t kUnitRows = 96;  // at most

// How a word of the panel meets x. Depth is counted in values of x as they are broadcast, of which
// a word meets kStep; a block of k is kBlock of them.
struct Float32 {
  using Value = float;
  static constexpr int kStep = 1;
  static constexpr int64_t kBlock = 64;
  static int64_t depth(int64_t k) { return k; }
  static void unpack(VecWord words, Vec* values) { values[0] = bit_cast<Vec>(words); }
  static Vec add(Vec sum, float x, Vec w) { return sum + broadcast(x) * w; }
};

struct Bfloat16 {
  using Value = float;
  static constexpr int kStep = 2;
  static constexpr int64_t kBlock = 64;
  static int64_t depth(int64_t k) { return k; }
  static void unpack(VecWord words, Vec* values) {
    values[0] = bit_cast<Vec>(words << 16);
    values[1] = bit_cast<Vec>(words & 0xffff0000u);
  }
  static Vec add(Vec sum, float x, Vec w) { return sum + broadcast(x) * w; }
};

// Pairs of bfloat16 on both sides.
struct Bfloat16Pairs {
  using Value = uint32_t;
  static constexpr int kStep = 1;
  static constexpr int64_t kBlock = 32;
  static int64_t depth(int64_t k) { return (k + 1) / 2; }
  static void unpack(VecWord words, VecWord* values) { values[0] = words; }
  static Vec add(Vec sum, uint32_t x, VecWord w) { return dot_pairs(sum, w, x - VecWord{}); }
};

// A tile's rows of x, one after the other.
template <typename Value>
struct Rows {
  const Value* x;
  int64_t stride;

  Value at(int row, int64_t k) const { return x[row * stride + k]; }
  Rows from(int row) const { return {x + row * stride, stride}; }
};

// The same as [depth][kTileRows].
template <typename Value>
struct PackedRows {
  const Value* x;

  Value at(int row, int64_t k) const { return x[k * kTileRows + row]; }
  PackedRows from(int row) const { return {x + row}; }
};

// acc[row][v] += x[row][k .. k + kCount) times the row of the panel that holds these k.
template <typename Format, int kCount, int kRows, int kVectors, typename X>
[[gnu::always_inline]] inline void multiply_step(X x, int64_t k, const uint32_t* words,
                                                 Vec (&acc)[kRows][kVectors]) {
  using Weight = std::conditional_t<std::is_same_v<typename Format::Value, float>, Vec, VecWord>;
  Weight w[kVectors][Format::kStep];
#pragma GCC unroll 8
  for (int v = 0; v < kVectors; v++) Format::unpack(load<VecWord>(words + v * kLanes), w[v]);
#pragma GCC unroll 2
  for (int s = 0; s < kCount; s++) {
#pragma GCC unroll 6
    for (int row = 0; row < kRows; row++) {
      const auto value = x.at(row, k + s);
#pragma GCC unroll 8
      for (int v = 0; v < kVectors; v++) acc[row][v] = Format::add(acc[row][v], value, w[v][s]);
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
      if (kFetch && column == 0) fetch_ahead(words);
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

// x as a format's values: [rows] `stride` apart, or packed as tiles [depth][kTileRows].
template <typename Format>
struct Operand {
  const typename Format::Value* rows;
  int64_t stride;
  const typename Format::Value* packed;  // or null
};

// A block of k, [depth][64], as float32.
template <typename Format>
void unpack_block(const uint32_t* words, int64_t depth, float* to) {
  for (int64_t k = 0; k < depth; k += Format::kStep) {
    fetch_ahead(words);
    for (int64_t column = 0; column < kPanel; column += kLanes, words += kLanes, to += kLanes) {
      Vec values[2];
      Format::unpack(load<VecWord>(words), values);
      store(to, values[0]);
      store(to + kPanel, values[1]);
    }
    to += kPanel;
  }
}

// One block of k for the rows of a unit, from `row`; `all` is the whole depth.
template <typename Format>
void multiply_block(const Operand<Format>& x, int64_t row, int64_t rows, int64_t k, int64_t all,
                    const uint32_t* words, int64_t depth, float* sums) {
  using Value = typename Format::Value;
  if (x.packed == nullptr) {
    const Rows<Value> tile = {x.rows + row * x.stride + k, x.stride};
    return multiply_rows<Format, true>(tile, rows, words, depth, sums);
  }
  const auto tile = [&](int64_t r) {
    return PackedRows<Value>{x.packed + (row + r) * all + k * kTileRows};
  };
  const auto left = [&](int64_t r) { return rows - r < kTileRows ? rows - r : kTileRows; };
  if constexpr (Format::kStep == 2) {
    alignas(64) float unpacked[Format::kBlock * kPanel];
    unpack_block<Format>(words, depth, unpacked);
    const auto* block = reinterpret_cast<const uint32_t*>(unpacked);
    for (int64_t r = 0; r < rows; r += kTileRows) {
      multiply_rows<Float32, false>(tile(r), left(r), block, depth, sums + r * kPanel);
    }
  } else {
    multiply_rows<Format, true>(tile(0), left(0), words, depth, sums);
    for (int64_t r = kTileRows; r < rows; r += kTileRows) {
      multiply_rows<Format, false>(tile(r), left(r), words, depth, sums + r * kPanel);
    }
  }
}

// sums [row_end - row][64] = the rows from `row` to `row_end` times a panel, and the bias.
template <typename Format>
void sum_up(const PackedLinear& call, const Operand<Format>& x, int64_t panel, int64_t row,
            int64_t row_end, float* sums) {
  const int64_t rows = row_end - row;
  const int64_t column = panel * kPanel, columns = least(call.columns - column, kPanel);
  for (int64_t c = 0; c < kPanel; c++) {
    sums[c] = call.bias != nullptr && c < columns ? call.bias[column + c] : 0.0f;
  }
  for (int64_t r = 1; r < rows; r++) memcpy(sums + r * kPanel, sums, kPanel * sizeof(float));

  const uint32_t* words = call.weight.words + panel * call.weight.panel_words();
  const int64_t all = Format::depth(call.weight.depth);
  for (int64_t k = 0; k < all; k += Format::kBlock) {
    const int64_t depth = all - k < Format::kBlock ? all - k : Format::kBlock;
    multiply_block(x, row, rows, k, all, words + k / Format::kStep * kPanel, depth, sums);
  }
}

// The rows from `row` to `row_end` of a panel's outputs.
template <typename Format>
void compute_unit(const PackedLinear& call, const Operand<Format>& x, int64_t panel, int64_t row,
                  int64_t row_end) {
  alignas(64) float sums[kUnitRows * kPanel];
  sum_up(call, x, panel, row, row_end, sums);
  if (call.activated.function != Activation::kNone) {
    return write_activated<kUnitRows>(call, panel, row, row_end - row, sums, false, [&](float* to) {
      sum_up(call, x, panel + unit_panels(call), row, row_end, to);
    });
  }
  const int64_t column = panel * kPanel;
  const auto bytes = static_cast<size_t>(least(call.columns - column, kPanel)) * sizeof(float);
  for (int64_t r = row; r < row_end; r++) {
    memcpy(call.out + r * call.columns + column, sums + (r - row) * kPanel, bytes);
  }
}

// A tile [depth][kTileRows] of x's values, from K = `count` floats a row; what stands for rows
// beyond the last is never read.
template <typename Value>
void pack_tile(const float* x, int64_t stride, int64_t rows, int64_t count, Value* to) {
  if constexpr (std::is_same_v<Value, uint32_t>) {
    constexpr int64_t kChunk = 256;
    for (int64_t r = 0; r < rows; r++) {
      for (int64_t k = 0; k < count; k += kChunk) {
        uint32_t pairs[kChunk / 2];
        const int64_t size = count - k < kChunk ? count - k : kChunk;
        to_pairs(x + r * stride + k, size, pairs);
        for (int64_t i = 0; i < (size + 1) / 2; i++) to[(k / 2 + i) * kTileRows + r] = pairs[i];
      }
    }
  } else if (rows == kTileRows) {
    for (int64_t k = 0; k < count; k++) {
#pragma GCC unroll 6
      for (int r = 0; r < kTileRows; r++) to[k * kTileRows + r] = x[r * stride + k];
    }
  } else {
    for (int64_t k = 0; k < count; k++) {
      for (int64_t r = 0; r < rows; r++) to[k * kTileRows + r] = x[r * stride + k];
    }
  }
}

// Few rows of x: in place, or rounded into `space`.
template <typename Format>
Operand<Format> few_rows(const PackedLinear& call, typename Format::Value* space) {
  if constexpr (std::is_same_v<typename Format::Value, float>) {
    return {call.x, call.x_stride, nullptr};
  } else {
    const int64_t depth = Format::depth(call.weight.depth);
    for (int64_t r = 0; r < call.rows; r++) {
      to_pairs(call.x + r * call.x_stride, call.weight.depth, space + r * depth);
    }
    return {space, depth, nullptr};
  }
}

// As few units of rows as there may be; or up to twice as many, where each thread then has as many
// as the others, or each unit as many threads.
int64_t choose_units(int64_t tiles, int64_t threads) {
  const int64_t least = ceil_div(tiles * kTileRows, kUnitRows);
  for (int64_t units = least; units <= 2 * least; units++) {
    if (units % threads == 0 || threads % units == 0) return units;
  }
  return least;
}

template <typename Format>
void run(const PackedLinear& whole) {
  using Value = typename Format::Value;
  if (whole.rows == 0) return;
  const int64_t depth = Format::depth(whole.weight.depth);
  const int64_t tiles = ceil_div(whole.rows, kTileRows);
  const bool few = tiles == 1;
  const int64_t sums = deferred_bytes(whole, few);
  const Workspace space(sums + tiles * kTileRows * depth * int64_t{sizeof(Value)});
  auto* packed = reinterpret_cast<Value*>(space.as<char>() + sums);
  const Deferred deferred(whole, few, space.as<float>());
  const PackedLinear& call = deferred.product();
  const Operand<Format> x =
      tiles > 1 ? Operand<Format>{nullptr, 0, packed} : few_rows<Format>(call, packed);
  const int64_t work = call.rows * call.columns * call.weight.depth;
  const int64_t threads = omp_get_max_threads(), units = choose_units(tiles, threads);
  const int64_t groups = units < threads ? units : threads;
  const Shares shares = {units, unit_panels(call), groups, (threads + groups - 1) / groups};
  int64_t* taken = none_taken(shares.count());
#pragma omp parallel if (work > kParallelWork)
  {
    if (tiles > 1) {
#pragma omp for schedule(static)
      for (int64_t tile = 0; tile < tiles; tile++) {
        const int64_t row = tile * kTileRows, left = call.rows - row;
        pack_tile(call.x + row * call.x_stride, call.x_stride, left < kTileRows ? left : kTileRows,
                  call.weight.depth, packed + row * depth);
      }
    }
    take_shares(taken, shares.count(), [&](int64_t share, int64_t i) {
      const int64_t first = shares.first_tile(share), count = shares.end_tile(share) - first;
      const int64_t panel = shares.first_panel(share) + i / count, unit = first + i % count;
      if (panel >= shares.end_panel(share)) return false;
      const int64_t row_end = (unit + 1) * tiles / units * kTileRows;
      compute_unit<Format>(call, x, panel, unit * tiles / units * kTileRows,
                           row_end < call.rows ? row_end : call.rows);
      return true;
    });
    deferred.finish();
  }
}

}  // namespace

void run_linear(const PackedLinear& call) {
  if (call.weight.step == 1) return run<Float32>(call);
#if defined(INGOT_AMX)
  run_tiles(call);
#else
  run<std::conditional_t<kHasDotBf16, Bfloat16Pairs, Bfloat16> >(call);
#endif
}

void linear(const DLTensor* x, const DLTensor* weight, const DLTensor* bias, int64_t out_features,
            DLTensor* out0) {
  PackedLinear call;
  if (read_call(x, weight, bias, out_features, {}, out0, &call)) run_linear(call);
}

}  // namespace ingot::INGOT_LEVEL

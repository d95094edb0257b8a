// A product with many rows of x, as prefill has. x is rounded once, into a workspace; a block
// multiplies 128 rows of W by 128 rows of x, whose steps come through shared memory, some ahead.
#pragma once

#include "product.h"

namespace ingot::cuda {

constexpr int kTileRows = 128;     // of x
constexpr int kTileColumns = 128;  // of W's rows: y's columns
constexpr int kWarpTiles = 8;      // a warp has 32 columns and 64 rows
constexpr int kStages = 4;

// x as [parts][rows][columns], columns a multiple of 32; rows beyond the last and columns beyond
// the depth are zero.
struct RoundedRows {
  uint4* data;
  int64_t rows, columns;

  int64_t bytes(int parts) const {
    return parts * rows * columns * static_cast<int64_t>(sizeof(uint16_t));
  }
  __device__ uint4* at(int part, int64_t row, int64_t k) const {
    return data + ((part * rows + row) * columns + k) / 8;
  }
};

template <int kParts>
__global__ void __launch_bounds__(256) round_rows(Rows x, RoundedRows to) {
  const int64_t eights = to.columns / 8;
  const int64_t index = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  if (index >= to.rows * eights) return;
  const int64_t row = index / eights;
  const int k = static_cast<int>(index % eights) * 8;
  float values[8] = {};
  for (int i = 0; i < 8 && row < x.count; i++) values[i] = x.at(row, k + i);
  uint32_t parts[kParts][4];
  split<kParts>(values, parts);
  for (int part = 0; part < kParts; part++) {
    *to.at(part, row, k) = {parts[part][0], parts[part][1], parts[part][2], parts[part][3]};
  }
}

template <int kParts>
using Stage = uint4[kParts][kTileRows][kStepColumns / 8];  // eight lanes read 128 bytes in a row

template <int kParts>
__device__ __forceinline__ void fetch(const RoundedRows& x, int64_t first_row, int step,
                                      Stage<kParts>& to) {
  constexpr int kCount = kTileRows * kStepColumns / 8;
#pragma unroll
  for (int part = 0; part < kParts; part++) {
    for (int i = threadIdx.x; i < kCount; i += blockDim.x) {
      const int row = i / 4, eight = i % 4;
      copy_async(&to[part][row][eight],
                 x.at(part, first_row + row, step * kStepColumns + 8 * eight));
    }
  }
}

template <typename Format, int kParts>
__global__ void __launch_bounds__(256)
    multiply_many_rows(Format weight, RoundedRows x, Product product) {
  static_assert(kStages * sizeof(Stage<kParts>) <= kMostShared);
  auto* stages = static_cast<Stage<kParts>*>(dynamic_shared());
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  const int g = lane / 4, t = lane % 4;
  const int half = blockIdx.x * (kTileColumns / kHalfPanel) + warp % 4;
  const int64_t first_row = static_cast<int64_t>(blockIdx.y) * kTileRows;
  const int row_of_warp = warp / 4 * 8 * kWarpTiles;
  // The last block's panels may not all exist: those warps help with x alone.
  const bool has_rows = static_cast<int64_t>(half) * kHalfPanel < product.columns;

  for (int s = 0; s < kStages - 1; s++) {
    if (s < weight.steps) fetch<kParts>(x, first_row, s, stages[s]);
    commit_copies();
  }
  Sums<kWarpTiles> sums, of_group;
  uint4 words[Format::kLoads] = {}, next[Format::kLoads] = {};
  typename Format::Group group{};
  if (has_rows && weight.steps > 0) weight.load(next, half, 0, g, t);
  for (int step = 0; step < weight.steps; step++) {
#pragma unroll
    for (int i = 0; i < Format::kLoads; i++) words[i] = next[i];
    if (has_rows && step + 1 < weight.steps) weight.load(next, half, step + 1, g, t);
    if (has_rows && weight.begins_group(step)) {
      group = weight.group(weight.header(half, step, g), half, step, g);
    }
    wait_copies<kStages - 2>();
    __syncthreads();  // the step is there for all, and the stage before it is free
    const int ahead = step + kStages - 1;
    if (ahead < weight.steps) fetch<kParts>(x, first_row, ahead, stages[ahead % kStages]);
    commit_copies();

    uint32_t rows[kWarpTiles][kParts][4];
#pragma unroll
    for (int m = 0; m < kWarpTiles; m++) {
#pragma unroll
      for (int part = 0; part < kParts; part++) {
        const uint4 eight = stages[step % kStages][part][row_of_warp + 8 * m + g][t];
        rows[m][part][0] = eight.x, rows[m][part][1] = eight.y;
        rows[m][part][2] = eight.z, rows[m][part][3] = eight.w;
      }
    }
    if constexpr (Format::kScaled) {
      of_group.template add<Format>(words, group, rows);
      if (!weight.ends_group(step)) continue;
      sums.add_scaled(of_group, group.scale);
      of_group = {};
    } else {
      sums.template add<Format>(words, group, rows);
    }
  }

  sums.each(g, t, [&](int column, int row, float sum) {
    const int64_t n = static_cast<int64_t>(half) * kHalfPanel + column;
    const int64_t m = first_row + row_of_warp + row;
    if (n >= product.columns || m >= product.x.count) return;
    product.out[m * product.columns + n] = sum + (product.bias != nullptr ? product.bias[n] : 0);
  });
}

template <typename Format, int kParts>
void many_rows(const Format& weight, const Product& product, cudaStream_t stream) {
  const int64_t tiles = divide_up(product.x.count, kTileRows);
  RoundedRows x = {nullptr, tiles * kTileRows, static_cast<int64_t>(weight.steps) * kStepColumns};
  const Workspace workspace(x.bytes(kParts), stream);
  x.data = workspace.at<uint4>(0);
  const int64_t eights = x.rows * x.columns / 8;
  if (eights > 0) {
    const dim3 blocks(static_cast<unsigned>(divide_up(eights, 256)));
    launch(round_rows<kParts>, blocks, 256, 0, stream, product.x, x);
  }
  const dim3 grid(static_cast<unsigned>(divide_up(product.columns, kTileColumns)),
                  static_cast<unsigned>(tiles));
  launch(multiply_many_rows<Format, kParts>, grid, 256,
         static_cast<int64_t>(kStages * sizeof(Stage<kParts>)), stream, weight, x, product);
}

}  // namespace ingot::cuda

// A product with at most 32 rows of x, as decoding has: W streams through registers once. A block
// has 32 rows of W; its warps share the columns k, and add their sums at the end.
#pragma once

#include "product.h"

namespace ingot::cuda {

constexpr int kMostWarps = 16;

// A lane's words of kChunk steps, with their groups' scales, under way while the chunk before is
// multiplied.
template <typename Format>
struct Chunk {
  uint4 words[Format::kChunk][Format::kLoads];
  typename Format::Group groups[Format::kChunk];  // of each step; the same one in a group's

  __device__ void load(const Format& weight, int half, int first, int g, int t) {
#pragma unroll
    for (int i = 0; i < Format::kChunk; i++) {
      if (first + i >= weight.steps) break;
      weight.load(words[i], half, first + i, g, t);
      const bool new_group = i == 0 || weight.begins_group(first + i);
      groups[i] = new_group ? weight.group(half, first + i, g) : groups[i - 1];
    }
  }
};

// The lane's eight columns of x, of each row 8m + g.
template <int kParts, int kTiles>
__device__ __forceinline__ void load_rows(const Rows& x, bool in_vectors, int step, int g, int t,
                                          uint32_t (&to)[kTiles][kParts][4]) {
#pragma unroll
  for (int m = 0; m < kTiles; m++) {
    const int64_t row = 8 * m + g;
    const int k = step * kStepColumns + 8 * t;
    float values[8] = {};
    if (row < x.count && k < x.depth) {
      if (in_vectors) {
        const auto* from = reinterpret_cast<const float4*>(x.data + row * x.stride + k);
        const float4 a = from[0], b = from[1];
        values[0] = a.x, values[1] = a.y, values[2] = a.z, values[3] = a.w;
        values[4] = b.x, values[5] = b.y, values[6] = b.z, values[7] = b.w;
      } else {
#pragma unroll
        for (int i = 0; i < 8; i++) values[i] = x.at(row, k + i);
      }
    }
    split<kParts>(values, to[m]);
  }
}

template <typename Format, int kParts, int kTiles>
__global__ void __launch_bounds__(32 * kMostWarps)
    multiply_few_rows(Format weight, Product product, bool in_vectors) {
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, warps = blockDim.x / 32;
  const int g = lane / 4, t = lane % 4, half = blockIdx.x;
  const int chunks = (weight.steps + Format::kChunk - 1) / Format::kChunk;
  const int begin = chunks * warp / warps, end = chunks * (warp + 1) / warps;

  Sums<kTiles> sums;
  Chunk<Format> chunk, next;
  if (begin < end) next.load(weight, half, begin * Format::kChunk, g, t);
  for (int c = begin; c < end; c++) {
    chunk = next;
    if (c + 1 < end) next.load(weight, half, (c + 1) * Format::kChunk, g, t);
    Sums<kTiles> of_group;
#pragma unroll
    for (int i = 0; i < Format::kChunk; i++) {
      const int step = c * Format::kChunk + i;
      if (step >= weight.steps) break;
      uint32_t x[kTiles][kParts][4];
      load_rows<kParts, kTiles>(product.x, in_vectors, step, g, t, x);
      if constexpr (Format::kScaled) {
        of_group.template add<Format>(chunk.words[i], chunk.groups[i], x);
        if (!weight.ends_group(step)) continue;
        sums.add_scaled(of_group, chunk.groups[i].scale);
        of_group = {};
      } else {
        sums.template add<Format>(chunk.words[i], chunk.groups[i], x);
      }
    }
  }

  // [warps][rows of x][32 rows of W]
  auto* shared = static_cast<float*>(dynamic_shared());
  constexpr int kCount = 8 * kTiles * kHalfPanel;
  sums.each(g, t,
            [&](int n, int m, float sum) { shared[warp * kCount + m * kHalfPanel + n] = sum; });
  __syncthreads();
  for (int i = threadIdx.x; i < kCount; i += blockDim.x) {
    const int64_t n = half * kHalfPanel + i % kHalfPanel, m = i / kHalfPanel;
    if (n >= product.columns || m >= product.x.count) continue;
    float sum = product.bias != nullptr ? product.bias[n] : 0;
    for (int w = 0; w < warps; w++) sum += shared[w * kCount + i];
    product.out[m * product.columns + n] = sum;
  }
}

template <typename Format, int kParts, int kTiles>
void few_rows(const Format& weight, const Product& product, cudaStream_t stream) {
  const int64_t chunks = divide_up(weight.steps, Format::kChunk);
  const int64_t warps = chunks < 1 ? 1 : chunks < kMostWarps ? chunks : kMostWarps;
  const dim3 grid(static_cast<unsigned>(divide_up(product.columns, kHalfPanel)));
  const int64_t shared = warps * 8 * kTiles * kHalfPanel * sizeof(float);
  launch(multiply_few_rows<Format, kParts, kTiles>, grid, static_cast<unsigned>(32 * warps), shared,
         stream, weight, product, product.x.in_vectors());
}

}  // namespace ingot::cuda

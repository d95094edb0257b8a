// A product with at most 32 rows of x, as decoding has: W streams through registers once. A block
// has 32 rows of W; its warps share the columns k, and add their sums at the end.
#pragma once

#include "product.h"

namespace ingot::cuda {

constexpr int kAlignedSteps = 4;  // 128 columns: every group ends within

// Up to 8 rows of x leave registers for two such blocks a multiprocessor: one streams while the
// other begins or adds up.
constexpr int kMostWarps = 8;

// A lane's words of kChunk steps and their groups' headers, under way while those before are
// multiplied.
template <typename Format>
struct Chunk {
  uint4 words[Format::kChunk][Format::kLoads];
  typename Format::Header headers[Format::kChunk];  // where a group begins

  __device__ void load(const Format& weight, int half, int first, int g, int t) {
#pragma unroll
    for (int i = 0; i < Format::kChunk; i++) {
      if (first + i >= weight.steps) break;
      weight.load(words[i], half, first + i, g, t);
      if (weight.begins_group(first + i)) headers[i] = weight.header(half, first + i, g);
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
__global__ void __launch_bounds__(32 * kMostWarps, kTiles == 1 ? 2 : 1)
    multiply_few_rows(Format weight, Product product, bool in_vectors) {
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, warps = blockDim.x / 32;
  const int g = lane / 4, t = lane % 4, half = blockIdx.x;
  const int parts = (weight.steps + kAlignedSteps - 1) / kAlignedSteps;
  const int begin = parts * warp / warps * kAlignedSteps;
  const int aligned_end = parts * (warp + 1) / warps * kAlignedSteps;
  const int end = aligned_end < weight.steps ? aligned_end : weight.steps;

  Sums<kTiles> sums, of_group;
  Chunk<Format> chunk, next;
  typename Format::Group group{};
  if (begin < end) next.load(weight, half, begin, g, t);
  for (int first = begin; first < end; first += Format::kChunk) {
    chunk = next;
    if (first + Format::kChunk < end) next.load(weight, half, first + Format::kChunk, g, t);
#pragma unroll
    for (int i = 0; i < Format::kChunk; i++) {
      const int step = first + i;
      if (step >= end) break;
      uint32_t x[kTiles][kParts][4];
      load_rows<kParts, kTiles>(product.x, in_vectors, step, g, t, x);
      if constexpr (Format::kScaled) {
        if (weight.begins_group(step)) group = weight.group(chunk.headers[i], half, step, g);
        of_group.template add<Format>(chunk.words[i], group, x);
        if (!weight.ends_group(step)) continue;
        sums.add_scaled(of_group, group.scale);
        of_group = {};
      } else {
        sums.template add<Format>(chunk.words[i], group, x);
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
  const int64_t parts = divide_up(weight.steps, kAlignedSteps);
  const int64_t warps = parts < 1 ? 1 : parts < kMostWarps ? parts : kMostWarps;
  const dim3 grid(static_cast<unsigned>(divide_up(product.columns, kHalfPanel)));
  const int64_t shared = warps * 8 * kTiles * kHalfPanel * sizeof(float);
  launch(multiply_few_rows<Format, kParts, kTiles>, grid, static_cast<unsigned>(32 * warps), shared,
         stream, weight, product, product.x.in_vectors());
}

}  // namespace ingot::cuda

// What a linear op multiplies, and x in the bfloat16 parts that tensor cores take.
#pragma once

#include "device.h"
#include "weight_formats.h"

namespace ingot::cuda {

// x [count, depth] float32, whose column k is read from perm[k] and times scale[k], where they are.
struct Rows {
  const float* data;
  int64_t stride;
  const float* scale;
  const int64_t* perm;
  int64_t count, depth;

  __device__ float at(int64_t row, int k) const {
    if (k >= depth) return 0;
    const float value = data[row * stride + (perm != nullptr ? perm[k] : k)];
    return scale != nullptr ? value * scale[k] : value;
  }
  // Whether eight columns can be read as two aligned vectors.
  bool in_vectors() const {
    return perm == nullptr && scale == nullptr && depth % kStepColumns == 0 && stride % 4 == 0 &&
           reinterpret_cast<uintptr_t>(data) % sizeof(float4) == 0;
  }
};

struct Product {
  Rows x;
  const float* bias;  // or null
  float* out;         // [x.count, columns]
  int64_t columns;
};

// Eight values as kParts times four pairs; part i + 1 is the rest that rounding left of part i.
template <int kParts>
__device__ __forceinline__ void split(float (&x)[8], uint32_t (&parts)[kParts][4]) {
#pragma unroll
  for (int part = 0; part < kParts; part++) {
#pragma unroll
    for (int j = 0; j < 4; j++) {
      const uint32_t pair = pack(BfloatPairs(), x[2 * j], x[2 * j + 1]);
      parts[part][j] = pair;
      x[2 * j] -= as_float(pair << 16);
      x[2 * j + 1] -= as_float(pair & 0xffff0000u);
    }
  }
}

// The sums of a warp's 32 rows of W with 8 * kTiles rows of x: sums[u][m][..] is mma's C for the
// rows 4g + 2u and 4g + 2u + 1 of W and the rows 8m .. 8m + 7 of x.
template <int kTiles>
struct Sums {
  float values[2][kTiles][4] = {};

  // Adds one step: the lane's words of W, and its eight columns of each row 8m + g of x.
  template <typename Format, int kParts>
  __device__ void add(const uint4 (&words)[Format::kLoads], const typename Format::Group& group,
                      const uint32_t (&x)[kTiles][kParts][4]) {
#pragma unroll
    for (int u = 0; u < 2; u++) {
      uint32_t first[4], second[4];
      Format::unpack(first, words, 2 * u, group);
      Format::unpack(second, words, 2 * u + 1, group);
#pragma unroll
      for (int half = 0; half < 2; half++) {
        const uint32_t a[4] = {first[2 * half], second[2 * half], first[2 * half + 1],
                               second[2 * half + 1]};
#pragma unroll
        for (int m = 0; m < kTiles; m++) {
#pragma unroll
          for (int part = 0; part < kParts; part++) {
            mma(BfloatPairs(), values[u][m], a, x[m][part][2 * half], x[m][part][2 * half + 1]);
          }
        }
      }
    }
  }

  // Adds a group's sums, times the scales of their rows of W.
  __device__ void add_scaled(const Sums& group, const float (&scale)[4]) {
#pragma unroll
    for (int u = 0; u < 2; u++) {
#pragma unroll
      for (int m = 0; m < kTiles; m++) {
#pragma unroll
        for (int i = 0; i < 4; i++) {
          values[u][m][i] += group.values[u][m][i] * scale[2 * u + i / 2];
        }
      }
    }
  }

  // visit(row of W among the 32, row of x, sum) of each that the lane holds.
  template <typename Visit>
  __device__ void each(int g, int t, const Visit& visit) const {
#pragma unroll
    for (int u = 0; u < 2; u++) {
#pragma unroll
      for (int m = 0; m < kTiles; m++) {
#pragma unroll
        for (int i = 0; i < 4; i++) {
          visit(4 * g + 2 * u + i / 2, 8 * m + 2 * t + i % 2, values[u][m][i]);
        }
      }
    }
  }
};

}  // namespace ingot::cuda

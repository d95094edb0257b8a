// What attention kernels on tensor cores share: the tile's queries in shared memory, and the online
// softmax (Milakov and Gimelshein, arXiv:1805.02867) of scores that lie as an mma leaves them.
#pragma once

#include "attention_page.h"

namespace ingot::cuda {

// queries = q, turned by the tokens' angles and times the query's factor, in 16 bits; zeros beyond
// the tile's rows. They lie as A's fragments do, [kRows / 16][kDim / 16][lane][4 words], so that a
// lane gets its own by one load. By all threads of the block.
template <typename Pairs, int kDim, int kRows>
__device__ void load_queries(char* queries, const DeviceCall& call, const RowTile& tile,
                             int64_t kv_head) {
  const float factor = call.query_factor();
  for (int i = threadIdx.x; i < kRows * kDim / 2; i += blockDim.x) {
    const int row = i / (kDim / 2), d = i % (kDim / 2) * 2;
    uint32_t pair = 0;
    if (row < tile.rows) {
      const int64_t token = tile.token(row);
      const float* q = vector_of(call.q, token, kv_head * tile.group + tile.head(row));
      pair = pack(Pairs(), turned(call.rotary, q, d, token) * factor,
                  turned(call.rotary, q, d + 1, token) * factor);
    }
    const int fragment = row / 16 * (kDim / 16) + d / 16, lane = row % 8 * 4 + d % 8 / 2;
    const int word = row % 16 / 8 + d % 16 / 8 * 2;
    reinterpret_cast<uint32_t*>(queries)[(fragment * 32 + lane) * 4 + word] = pair;
  }
}

// A's fragment of the queries [16 band, 16 band + 16), dimensions [16 step, 16 step + 16).
template <int kDim>
__device__ __forceinline__ void load_query(uint32_t (&a)[4], const char* queries, int band,
                                           int step, int lane) {
  const int fragment = band * (kDim / 16) + step;
  const uint4 words = reinterpret_cast<const uint4*>(queries)[fragment * 32 + lane];
  a[0] = words.x;
  a[1] = words.y;
  a[2] = words.z;
  a[3] = words.w;
}

__device__ __forceinline__ float largest_of_quad(float x) {
  x = fmaxf(x, __shfl_xor_sync(kAllLanes, x, 1));
  return fmaxf(x, __shfl_xor_sync(kAllLanes, x, 2));
}
__device__ __forceinline__ float sum_of_quad(float x) {
  x += __shfl_xor_sync(kAllLanes, x, 1);
  return x + __shfl_xor_sync(kAllLanes, x, 2);
}

// 16 rows of scores and their softmax so far: a lane has the rows lane / 4 and lane / 4 + 8.
template <typename Page, int kPages>
struct Scores {
  float values[2 * kPages][4];  // [matrix of 8 tokens], two to a page

  // Products become scores: codes get their keys' scales, then the cap is applied.
  __device__ __forceinline__ void finish(const DeviceCall& call, int page, const char* keys,
                                         int lane) {
    if constexpr (Page::kCodes) {
#pragma unroll
      for (int i = 0; i < 8; i++) {
        const int token = Page::place_in_16(i / 4, i % 2, lane % 4);
        values[2 * page + i / 4][i % 4] *= Page::scale_of(keys, token);
      }
    }
    if (call.softcap == 0.0f) return;
#pragma unroll
    for (int i = 0; i < 8; i++) {
      float& score = values[2 * page + i / 4][i % 4];
      score = capped(score, call.softcap);
    }
  }

  // Hides what a row does not see of the page whose first position is `position`.
  __device__ __forceinline__ void mask(const Mask (&rows)[2], int page, int position, int lane) {
#pragma unroll
    for (int j = 0; j < 2; j++) {
#pragma unroll
      for (int c = 0; c < 4; c++) {
        const int token = position + Page::place_in_16(j, c % 2, lane % 4);
        if (!rows[c / 2].sees(token)) values[2 * page + j][c] = -kInfinity;
      }
    }
  }

  // Scores become weights relative to the largest score so far. `rescale`: what earlier sums are to
  // be multiplied by.
  __device__ __forceinline__ void soften(float (&largest)[2], float (&total)[2],
                                         float (&rescale)[2]) {
#pragma unroll
    for (int r = 0; r < 2; r++) {
      float most = values[0][2 * r];
#pragma unroll
      for (int j = 0; j < 2 * kPages; j++) {
        most = fmaxf(most, fmaxf(values[j][2 * r], values[j][2 * r + 1]));
      }
      most = fmaxf(largest[r], largest_of_quad(most));
      const float shift = most == -kInfinity ? 0.0f : most;  // else -inf - -inf
      rescale[r] = exp2_fast(largest[r] - shift);
      largest[r] = most;
      float sum = 0.0f;
#pragma unroll
      for (int j = 0; j < 2 * kPages; j++) {
#pragma unroll
        for (int i = 2 * r; i < 2 * r + 2; i++) {
          values[j][i] = exp2_fast(values[j][i] - shift);
          sum += values[j][i];
        }
      }
      total[r] = total[r] * rescale[r] + sum;
    }
  }

  // A page's weights in 16 bits as A's fragment; of codes, times their values' scales.
  __device__ __forceinline__ void weights(uint32_t (&a)[4], int page, const char* parts, int lane) {
#pragma unroll
    for (int j = 0; j < 2; j++) {
      float (&from)[4] = values[2 * page + j];
      if constexpr (Page::kCodes) {
#pragma unroll
        for (int c = 0; c < 4; c++) {
          const float scale = Page::scale_of(parts, Page::place_in_16(j, c % 2, lane % 4));
          from[c] = from[c] == 0.0f ? 0.0f : from[c] * scale;  // a scale not seen may be NaN
        }
      }
      a[2 * j] = pack(typename Page::Pairs(), from[0], from[1]);
      a[2 * j + 1] = pack(typename Page::Pairs(), from[2], from[3]);
    }
  }
};

}  // namespace ingot::cuda

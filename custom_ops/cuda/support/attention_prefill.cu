// Attention of many rows over a paged cache, after FlashAttention-2 (Dao, arXiv:2307.08691, section
// 3): a block owns a tile of rows, its warps 16 or 32 of them each, and walks the keys 64 at a
// time. While a step's products with K run, its V is on its way, and during those with V the next
// K. Sums are rescaled only where some row's largest score has grown.
#include "attention_launch.h"
#include "attention_mma.h"
#include "attention_table.h"
#include "attention_types.h"

namespace ingot::cuda {
namespace {

template <typename T, int kDim>
struct Prefill {
  using Cache = Page<T, kDim>;
  static constexpr int kWarps = 4;
  static constexpr int kThreads = 32 * kWarps;
  static constexpr int kBands = kDim <= 128 ? 2 : 1;  // of 16 rows, of a warp
  static constexpr int kRows = 16 * kBands * kWarps;
  static constexpr int kPages = 4;  // of a step
  static constexpr int kQueryBytes = kRows * kDim * 2;
  static constexpr int kSharedBytes = kQueryBytes + 2 * kPages * Cache::kPartBytes;
  static_assert(kSharedBytes <= kMostShared);
};

// Blocks: KV heads of each tile, the last tiles first: they see most, and the short ones fill the
// gaps at the end. Sequences of up to kFewRows rows are left out.
template <typename T, int kDim>
__global__ void __launch_bounds__(Prefill<T, kDim>::kThreads, 2)
    attend(DeviceCall call, int64_t tiles) {
  using P = Prefill<T, kDim>;
  using Cache = typename P::Cache;
  using Pairs = typename Cache::Pairs;
  const int64_t number = tiles - 1 - blockIdx.x / call.kv_heads;
  const int64_t head = blockIdx.x % call.kv_heads;
  const int thread = static_cast<int>(threadIdx.x), lane = thread % 32;
  const int64_t sequence = sequence_of_tile(call, number, P::kRows);
  const Sequence owner(call, sequence);
  const int64_t first_number = first_tile(owner.first_token, call.group_size, P::kRows, sequence);
  const int first = static_cast<int>(number - first_number) * P::kRows;
  if (owner.rows <= kFewRows || first >= owner.rows) return;

  // In shared memory: registers are what this kernel has least of.
  __shared__ RowTile tile;
  __shared__ SeenPages seen;
  if (thread == 0) {
    tile = RowTile(call, owner, first, P::kRows);
    seen = SeenPages(call, tile);
  }
  __syncthreads();
  char* queries = static_cast<char*>(dynamic_shared());
  char* keys = queries + P::kQueryBytes;
  char* values = keys + P::kPages * Cache::kPartBytes;
  const char* cache = call.cache + head * call.head_bytes;
  PageList pages(call, sequence, seen, 0, seen.count, 1, lane);
  const int steps = (seen.count + P::kPages - 1) / P::kPages;

  // K of pages that are not there is whatever was there before: it is masked. V must be zero.
  const auto fetch_keys = [&](int step) {
#pragma unroll 1
    for (int p = 0; p < P::kPages; p++) {
      const int i = step * P::kPages + p;
      if (i >= seen.count) continue;
      const char* page = cache + pages.block(i) * call.cache_stride;
      Cache::template copy_keys<P::kThreads>(keys + p * Cache::kPartBytes, page, thread);
    }
    commit_copies();
  };
  const auto fetch_values = [&](int step) {
#pragma unroll 1
    for (int p = 0; p < P::kPages; p++) {
      const int i = step * P::kPages + p;
      const bool there = i < seen.count;
      const char* page = cache + (there ? pages.block(i) * call.cache_stride : 0);
      const int position = pages.page(i) * kPageTokens;
      Cache::template copy_values<P::kThreads>(
          values + p * Cache::kPartBytes, page, thread,
          [&](int token) { return there && seen.any.sees(position + token); });
    }
    commit_copies();
  };

  fetch_keys(0);
  load_queries<Pairs, kDim, P::kRows>(queries, call, tile, head);
  const int own_row = thread / 32 * 16 * P::kBands;
  float sums[P::kBands][2 * Cache::kSteps][4] = {};
  float largest[P::kBands][2], total[P::kBands][2] = {};
#pragma unroll
  for (int m = 0; m < P::kBands; m++) largest[m][0] = largest[m][1] = -kInfinity;

  for (int step = 0; step < steps; step++) {
    wait_copies<0>();
    __syncthreads();  // K of this step is there, V of the step before is read
    fetch_values(step);

    Scores<Cache, P::kPages> scores[P::kBands]{};
#pragma unroll
    for (int s = 0; s < Cache::kSteps; s += Cache::kUnit) {
      uint32_t query[P::kBands][Cache::kUnit][4];
#pragma unroll
      for (int m = 0; m < P::kBands; m++) {
#pragma unroll
        for (int u = 0; u < Cache::kUnit && s + u < Cache::kSteps; u++) {
          load_query<kDim>(query[m][u], queries, own_row / 16 + m, s + u, lane);
        }
      }
#pragma unroll
      for (int p = 0; p < P::kPages; p++) {
        typename Cache::Fragments b;
        Cache::load_keys(b, keys + p * Cache::kPartBytes, s, lane);
#pragma unroll
        for (int u = 0; u < Cache::kUnit && s + u < Cache::kSteps; u++) {
#pragma unroll
          for (int m = 0; m < P::kBands; m++) {
            mma(Pairs(), scores[m].values[2 * p], query[m][u], b[u][0], b[u][1]);
            mma(Pairs(), scores[m].values[2 * p + 1], query[m][u], b[u][2], b[u][3]);
          }
        }
      }
    }

#pragma unroll
    for (int p = 0; p < P::kPages; p++) {
      const int i = step * P::kPages + p, page = pages.page(i);
      const bool masked = i >= seen.count || !seen.all.sees_page(page);
#pragma unroll
      for (int m = 0; m < P::kBands; m++) {
        scores[m].finish(call, p, keys + p * Cache::kPartBytes, lane);
        if (!masked) continue;
        const int row = own_row + 16 * m + lane / 4;
        Mask rows[2] = {mask_of(call, tile, row), mask_of(call, tile, row + 8)};
        if (i >= seen.count) rows[0] = rows[1] = {-1, 0, 0};  // no position
        scores[m].mask(rows, p, page * kPageTokens, lane);
      }
    }

    wait_copies<0>();
    __syncthreads();  // V of this step is there, its K is read
    if (step + 1 < steps) fetch_keys(step + 1);

#pragma unroll
    for (int m = 0; m < P::kBands; m++) {
      float rescale[2];
      scores[m].soften(largest[m], total[m], rescale);
      if (__any_sync(kAllLanes, rescale[0] != 1.0f || rescale[1] != 1.0f)) {
#pragma unroll
        for (int n = 0; n < 2 * Cache::kSteps; n++) {
#pragma unroll
          for (int c = 0; c < 4; c++) sums[m][n][c] *= rescale[c / 2];
        }
      }
    }
#pragma unroll
    for (int p = 0; p < P::kPages; p++) {
      const char* part = values + p * Cache::kPartBytes;
      uint32_t weights[P::kBands][4];
#pragma unroll
      for (int m = 0; m < P::kBands; m++) scores[m].weights(weights[m], p, part, lane);
#pragma unroll
      for (int s = 0; s < Cache::kSteps; s += Cache::kUnit) {
        typename Cache::Fragments b;
        Cache::load_values(b, part, s, lane);
#pragma unroll
        for (int n = 0; n < 2 * Cache::kUnit && s + n / 2 < Cache::kSteps; n++) {
#pragma unroll
          for (int m = 0; m < P::kBands; m++) {
            mma(Pairs(), sums[m][2 * s + n], weights[m], b[n / 2][n % 2 * 2],
                b[n / 2][n % 2 * 2 + 1]);
          }
        }
      }
    }
  }

#pragma unroll
  for (int m = 0; m < P::kBands; m++) {
#pragma unroll
    for (int r = 0; r < 2; r++) {
      const float factor = 1.0f / sum_of_quad(total[m][r]);
      const int row = own_row + 16 * m + lane / 4 + 8 * r;
      if (row >= tile.rows) continue;
      float* out = tile.out(call, row, head);
#pragma unroll
      for (int n = 0; n < 2 * Cache::kSteps; n++) {
#pragma unroll
        for (int i = 0; i < 2; i++) {
          out[n / 2 * 16 + Cache::place_in_16(n % 2, i, lane % 4)] = sums[m][n][2 * r + i] * factor;
        }
      }
    }
  }
}

}  // namespace

void attend_many(const DeviceCall& call, cudaStream_t stream) {
  with_tensor_cores(call.kv_type, call.dim, [&](auto item, auto dim) {
    using P = Prefill<decltype(item), dim()>;
    const int64_t tiles = tile_count(call, P::kRows);
    launch(attend<decltype(item), dim()>, static_cast<unsigned>(tiles * call.kv_heads), P::kThreads,
           P::kSharedBytes, stream, call, tiles);
  });
}

}  // namespace ingot::cuda

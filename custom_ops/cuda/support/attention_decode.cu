// Attention of few rows over a paged cache: K and V come from memory once for 16 rows, the memory
// sets the pace. Each warp walks its own pages, one or two of them on their way at any time, and
// sums what its tile of 16 rows sees of them.
#include "attention_launch.h"
#include "attention_mma.h"
#include "attention_table.h"
#include "attention_types.h"

namespace ingot::cuda {
namespace {

template <typename T, int kDim>
struct Decode {
  using Cache = Page<T, kDim>;
  static constexpr int kRows = kFewRows;
  static constexpr int kPageBytes = 2 * Cache::kPartBytes;
  static constexpr int kWarps = kPageBytes > 12 << 10 ? 2 : 4;
  static constexpr int kThreads = 32 * kWarps;
  static constexpr int kLeastPages = 2 * kWarps;  // of a block that shares a tile with others
  static constexpr int kQueryBytes = kRows * kDim * 2;
  // Three pages a warp, or two where a block may not have so much: then more blocks run at once.
  static constexpr int kStages = kQueryBytes + kWarps * 3 * kPageBytes <= kMostShared ? 3 : 2;
  static constexpr int kRingBytes = kWarps * kStages * kPageBytes;
  // After the last page the ring holds the warps' sums.
  static constexpr int kSumBytes = kWarps * kRows * (kDim + 2) * 4;
  static constexpr int kSharedBytes =
      kQueryBytes + (kRingBytes > kSumBytes ? kRingBytes : kSumBytes);
  static_assert(kSharedBytes <= kMostShared);
};

// Blocks x: KV heads of each sequence; y: those that share its keys. Sequences of more than
// `most_rows` rows are left out. The unit of `split` is the sequence's tile, of which there are
// one, or as many as first_tile leaves numbers where most_rows is INT_MAX.
template <typename T, int kDim>
__global__ void __launch_bounds__(Decode<T, kDim>::kThreads)
    attend(DeviceCall call, Split split, int most_rows) {
  using D = Decode<T, kDim>;
  using Cache = typename D::Cache;
  using Pairs = typename Cache::Pairs;
  const int64_t sequence = blockIdx.x / call.kv_heads, head = blockIdx.x % call.kv_heads;
  const int index = static_cast<int>(blockIdx.y);
  const int warp = static_cast<int>(threadIdx.x) / 32, lane = static_cast<int>(threadIdx.x) % 32;
  char* queries = static_cast<char*>(dynamic_shared());
  char* shared = queries + D::kQueryBytes;
  char* ring = shared + warp * D::kStages * D::kPageBytes;
  const char* cache = call.cache + head * call.head_bytes;

  // In shared memory: they need not stay in registers.
  __shared__ RowTile tile;
  __shared__ SeenPages seen;
  const Sequence owner(call, sequence);
  if (owner.rows > most_rows) return;
  for (int first = 0; first < owner.rows; first += D::kRows) {
    __syncthreads();  // the tile before has been read
    if (threadIdx.x == 0) {
      tile = RowTile(call, owner, first, D::kRows);
      seen = SeenPages(call, tile);
    }
    __syncthreads();
    const Part part(seen.count, split.splits, index, D::kLeastPages);
    if (part.begin == part.end) continue;

    load_queries<Pairs, kDim, D::kRows>(queries, call, tile, head);
    __syncthreads();
    PageList pages(call, sequence, seen, part.begin + warp, part.end, D::kWarps, lane);
    const Mask any = seen.any;
    const auto fetch = [&](int i) {
      if (i < pages.count()) {
        const char* page = cache + pages.block(i) * call.cache_stride;
        const int position = pages.page(i) * kPageTokens;
        char* to = ring + i % D::kStages * D::kPageBytes;
        Cache::template copy_keys<32>(to, page, lane);
        Cache::template copy_values<32>(to + Cache::kPartBytes, page, lane,
                                        [&](int token) { return any.sees(position + token); });
      }
      commit_copies();
    };

    float largest[2] = {-kInfinity, -kInfinity}, total[2] = {};
    float sums[2 * Cache::kSteps][4] = {};
    for (int i = 0; i < D::kStages - 1; i++) fetch(i);
    for (int i = 0; i < pages.count(); i++) {
      wait_copies<D::kStages - 2>();
      __syncwarp();  // the copies of all lanes are there, and all have read the page before
      fetch(i + D::kStages - 1);
      const char* keys = ring + i % D::kStages * D::kPageBytes;
      const char* values = keys + Cache::kPartBytes;

      // Two sums of half the dimensions each: their mma do not wait for each other.
      Scores<Cache, 1> scores{}, others{};
#pragma unroll
      for (int s = 0; s < Cache::kSteps; s += Cache::kUnit) {
        typename Cache::Fragments b;
        Cache::load_keys(b, keys, s, lane);
#pragma unroll
        for (int u = 0; u < Cache::kUnit && s + u < Cache::kSteps; u++) {
          uint32_t query[4];
          load_query<kDim>(query, queries, 0, s + u, lane);
          float (&to)[2][4] = (s + u) % 2 == 0 ? scores.values : others.values;
          mma(Pairs(), to[0], query, b[u][0], b[u][1]);
          mma(Pairs(), to[1], query, b[u][2], b[u][3]);
        }
      }
#pragma unroll
      for (int j = 0; j < 2; j++) {
#pragma unroll
        for (int c = 0; c < 4; c++) scores.values[j][c] += others.values[j][c];
      }
      scores.finish(call, 0, keys, lane);
      const int page = pages.page(i);
      if (!seen.all.sees_page(page)) {
        const Mask rows[2] = {mask_of(call, tile, lane / 4), mask_of(call, tile, lane / 4 + 8)};
        scores.mask(rows, 0, page * kPageTokens, lane);
      }
      float rescale[2];
      scores.soften(largest, total, rescale);
      uint32_t weights[4];
      scores.weights(weights, 0, values, lane);
#pragma unroll
      for (int s = 0; s < Cache::kSteps; s += Cache::kUnit) {
        typename Cache::Fragments b;
        Cache::load_values(b, values, s, lane);
#pragma unroll
        for (int n = 0; n < 2 * Cache::kUnit && s + n / 2 < Cache::kSteps; n++) {
          float (&to)[4] = sums[2 * s + n];
#pragma unroll
          for (int c = 0; c < 4; c++) to[c] *= rescale[c / 2];
          mma(Pairs(), to, weights, b[n / 2][n % 2 * 2], b[n / 2][n % 2 * 2 + 1]);
        }
      }
    }
    wait_copies<0>();
    __syncthreads();  // the ring is free

    float* floats = reinterpret_cast<float*>(shared);
    const Partials own{reinterpret_cast<RowSum*>(floats + D::kWarps * D::kRows * kDim), floats,
                       D::kRows, kDim, D::kWarps};
#pragma unroll
    for (int r = 0; r < 2; r++) {
      const int row = lane / 4 + 8 * r;
      total[r] = sum_of_quad(total[r]);
      if (lane % 4 == 0) own.row_sum(warp, row) = {largest[r], total[r]};
#pragma unroll
      for (int m = 0; m < 2 * Cache::kSteps; m++) {
#pragma unroll
        for (int i = 0; i < 2; i++) {
          const int d = m / 2 * 16 + Cache::place_in_16(m % 2, i, lane % 4);
          own.sum(warp, row, d) = sums[m][2 * r + i];
        }
      }
    }
    __syncthreads();
    const int64_t number =
        most_rows == INT_MAX
            ? first_tile(owner.first_token, tile.group, D::kRows, sequence) + first / D::kRows
            : sequence;
    finish_tile(call, tile, head, own, split, number * call.kv_heads + head, index, part.parts);
  }
}

}  // namespace

Split split_of_few(const DeviceCall& call, bool all) {
  Split split{1, kFewRows, all ? tile_count(call, kFewRows) : call.sequences};
  with_tensor_cores(call.kv_type, call.dim, [&](auto item, auto dim) {
    using D = Decode<decltype(item), dim()>;
    split.splits = split_count(call.sequences * call.kv_heads, call.pages, D::kLeastPages,
                               blocks_at_once(D::kSharedBytes));
  });
  return split;
}

void attend_few(const DeviceCall& call, bool all, const Split& split, cudaStream_t stream) {
  const dim3 grid(static_cast<unsigned>(call.sequences * call.kv_heads),
                  static_cast<unsigned>(split.splits));
  with_tensor_cores(call.kv_type, call.dim, [&](auto item, auto dim) {
    using D = Decode<decltype(item), dim()>;
    launch(attend<decltype(item), dim()>, grid, D::kThreads, D::kSharedBytes, stream, call, split,
           all ? INT_MAX : kFewRows);
  });
}

}  // namespace ingot::cuda

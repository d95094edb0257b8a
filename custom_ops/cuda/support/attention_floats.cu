// Attention in plain float32: for float32 caches, for head_dims and alignments that the tensor-core
// kernels do not take, and where there is no cache. A block owns 32 rows, its warps 8 each, or half
// of that where the head_dim is above 128, and walks the keys 32 at a time, a lane each; long sums
// are added up from sums of 32 terms.
#include "attention_launch.h"
#include "attention_types.h"

namespace ingot::cuda {
namespace {

// Keys and values in a paged cache of T.
template <typename T>
struct PagedSource {
  static constexpr bool kPaged = true;
  static constexpr bool kCodes = sizeof(T) == 1;

  __device__ PagedSource(const DeviceCall& call, const Sequence&, int64_t sequence, int64_t head)
      : call_(call),
        table_(call.block_table + sequence * call.pages),
        cache_(call.cache + head * call.head_bytes) {}

  __device__ float key(int page, int token, int d) const {
    return item(part(page), d * 16 + token, token);
  }
  __device__ float value(int page, int token, int d) const {
    const char* values = part(page) + call_.head_bytes / 2;
    return item(values, token * static_cast<int>(call_.dim) + d, token);
  }

 private:
  __device__ const char* part(int page) const { return cache_ + table_[page] * call_.cache_stride; }
  __device__ float item(const char* part, int i, int token) const {
    if constexpr (kCodes) {
      const auto* codes = reinterpret_cast<const int8_t*>(part + kScaleBytes);
      return static_cast<float>(codes[i]) * reinterpret_cast<const float*>(part)[token];
    } else {
      return to_float(reinterpret_cast<const T*>(part)[i]);
    }
  }

  const DeviceCall& call_;
  const int64_t* table_;
  const char* cache_;
};

// Keys and values as tensors of all tokens.
struct PlainSource {
  static constexpr bool kPaged = false;

  __device__ PlainSource(const DeviceCall& call, const Sequence& owner, int64_t, int64_t head)
      : call_(call), first_token_(owner.first_token), head_(head) {}

  __device__ float key(int page, int token, int d) const { return of(call_.k, page, token)[d]; }
  __device__ float value(int page, int token, int d) const { return of(call_.v, page, token)[d]; }

 private:
  __device__ const float* of(const Heads& heads, int page, int token) const {
    return vector_of(heads, first_token_ + page * kPageTokens + token, head_);
  }

  const DeviceCall& call_;
  int64_t first_token_, head_;
};

// For head_dims up to 32 kChunks.
template <int kChunks>
struct Floats {
  static constexpr int kWarps = 4;
  static constexpr int kThreads = 32 * kWarps;
  static constexpr int kWarpRows = kChunks <= 4 ? 8 : 4;
  static constexpr int kRows = kWarps * kWarpRows;
  static constexpr int kKeys = 32;              // of a step: two pages
  static constexpr int kKeyStride = kKeys + 1;  // lanes along K's other dimension: other banks
  static constexpr int kTerms = 32;
  static constexpr int kLeastPages = 8;  // of a block that shares a tile with others

  // In floats: queries [kRows][dim], K [dim][kKeyStride], V [kKeys][dim], dims a multiple of 4,
  // weights [kRows][kKeys].
  __host__ __device__ static constexpr int padded(int dim) { return (dim + 3) / 4 * 4; }
  static constexpr int shared_bytes(int dim) {
    const int size = padded(dim);
    return (kRows * size + size * kKeyStride + kKeys * size + kRows * kKeys) * 4;
  }
  static_assert(shared_bytes(32 * kChunks) <= kMostShared);
};

template <typename Body>
auto with_floats(int64_t dim, const Body& body) {
  if (dim <= 64) return body(Floats<2>());
  if (dim <= 128) return body(Floats<4>());
  return body(Floats<8>());
}

// Blocks x: KV heads of each tile, the last first; y: those that share its keys.
template <typename Source, int kChunks>
__global__ void __launch_bounds__(Floats<kChunks>::kThreads) attend(DeviceCall call, Split split) {
  using F = Floats<kChunks>;
  const int64_t number = split.tiles - 1 - blockIdx.x / call.kv_heads;
  const int64_t head = blockIdx.x % call.kv_heads;
  const int index = static_cast<int>(blockIdx.y), dim = static_cast<int>(call.dim);
  const int thread = static_cast<int>(threadIdx.x), lane = thread % 32;
  const int64_t sequence = sequence_of_tile(call, number, F::kRows);
  const Sequence owner(call, sequence);
  const int64_t first_number = first_tile(owner.first_token, call.group_size, F::kRows, sequence);
  const int first = static_cast<int>(number - first_number) * F::kRows;
  if (first >= owner.rows) return;
  const RowTile tile(call, owner, first, F::kRows);
  const SeenPages seen(call, tile);
  const Part part(seen.count, split.splits, index, F::kLeastPages);
  if (part.begin == part.end) return;
  const Source source(call, owner, sequence, head);

  const int padded = F::padded(dim);
  float* queries = static_cast<float*>(dynamic_shared());
  float* values = queries + F::kRows * padded;
  float* weights = values + F::kKeys * padded;
  float* keys = weights + F::kRows * F::kKeys;
  for (int i = thread; i < F::kRows * padded; i += F::kThreads) {
    const int row = i / padded, d = i % padded;
    queries[i] = 0.0f;
    if (row >= tile.rows || d >= dim) continue;
    const float* q = vector_of(call.q, tile.token(row), head * tile.group + tile.head(row));
    queries[i] = turned(call.rotary, q, d, tile.token(row)) * call.query_factor();
  }

  const int own_row = thread / 32 * F::kWarpRows;
  const bool works = own_row < tile.rows;
  queries += own_row * padded;
  weights += own_row * F::kKeys;
  float largest[F::kWarpRows], total[F::kWarpRows] = {}, sums[F::kWarpRows][kChunks] = {};
#pragma unroll
  for (int r = 0; r < F::kWarpRows; r++) largest[r] = -kInfinity;

  for (int begin = part.begin; begin < part.end; begin += 2) {
    __syncthreads();  // the step before has been read
    const auto stage = [&](int key, int d, float& to, auto get) {
      const int place = begin + key / kPageTokens, page = seen.page(place);
      const int token = key % kPageTokens;
      const bool there = place < part.end && seen.any.sees(page * kPageTokens + token) && d < dim;
      to = there ? get(page, token, d) : 0.0f;
    };
    for (int i = thread; i < F::kKeys * padded; i += F::kThreads) {
      // As keys lie in memory: neighbouring threads read neighbours.
      const int key = Source::kPaged ? i % F::kKeys : i / padded;
      const int d = Source::kPaged ? i / F::kKeys : i % padded;
      stage(key, d, keys[d * F::kKeyStride + key],
            [&](int page, int token, int d) { return source.key(page, token, d); });
      stage(i / padded, i % padded, values[i],
            [&](int page, int token, int d) { return source.value(page, token, d); });
    }
    __syncthreads();
    if (!works) continue;

    float scores[F::kWarpRows] = {};
    for (int from = 0; from < padded; from += F::kTerms) {
      float terms[F::kWarpRows] = {};
      for (int d = from; d < min(from + F::kTerms, padded); d += 4) {
        float k[4];
#pragma unroll
        for (int j = 0; j < 4; j++) k[j] = keys[(d + j) * F::kKeyStride + lane];
#pragma unroll
        for (int r = 0; r < F::kWarpRows; r++) {
          const float4 q = *reinterpret_cast<const float4*>(queries + r * padded + d);
          terms[r] = fmaf(q.w, k[3], fmaf(q.z, k[2], fmaf(q.y, k[1], fmaf(q.x, k[0], terms[r]))));
        }
      }
#pragma unroll
      for (int r = 0; r < F::kWarpRows; r++) scores[r] += terms[r];
    }

    const int place = begin + lane / kPageTokens;
    const int position = seen.page(place) * kPageTokens + lane % kPageTokens;
    float rescale[F::kWarpRows];
#pragma unroll
    for (int r = 0; r < F::kWarpRows; r++) {
      const Mask mask = mask_of(call, tile, own_row + r);
      float score = scores[r];
      if (call.softcap != 0.0f) score = call.softcap * kLog2E * tanhf(score);
      if (place >= part.end || !mask.sees(position)) score = -kInfinity;
      const float most = fmaxf(largest[r], largest_of_warp(score));
      const float shift = most == -kInfinity ? 0.0f : most;  // else -inf - -inf
      const float weight = exp2f(score - shift);
      rescale[r] = exp2f(largest[r] - shift);
      largest[r] = most;
      total[r] = total[r] * rescale[r] + weight;
      weights[r * F::kKeys + lane] = weight;
    }
    __syncwarp();
#pragma unroll
    for (int c = 0; c < kChunks; c++) {
      const int d = min(lane + 32 * c, dim - 1);
      float terms[F::kWarpRows] = {};
      for (int key = 0; key < F::kKeys; key += 4) {
        float v[4];
#pragma unroll
        for (int j = 0; j < 4; j++) v[j] = values[(key + j) * padded + d];
#pragma unroll
        for (int r = 0; r < F::kWarpRows; r++) {
          const float4 w = *reinterpret_cast<const float4*>(weights + r * F::kKeys + key);
          terms[r] = fmaf(w.w, v[3], fmaf(w.z, v[2], fmaf(w.y, v[1], fmaf(w.x, v[0], terms[r]))));
        }
      }
#pragma unroll
      for (int r = 0; r < F::kWarpRows; r++) sums[r][c] = sums[r][c] * rescale[r] + terms[r];
    }
  }

  // The queries' and values' memory takes the sums.
  __syncthreads();
  float* all = static_cast<float*>(dynamic_shared());
  const Partials own{reinterpret_cast<RowSum*>(all + F::kRows * padded), all, F::kRows, dim, 1};
#pragma unroll
  for (int r = 0; r < F::kWarpRows; r++) {
    total[r] = sum_of_warp(total[r]);
    if (lane == 0) own.row_sum(0, own_row + r) = {largest[r], total[r]};
#pragma unroll
    for (int c = 0; c < kChunks; c++) {
      if (lane + 32 * c < dim) own.sum(0, own_row + r, lane + 32 * c) = sums[r][c];
    }
  }
  __syncthreads();
  finish_tile(call, tile, head, own, split, number * call.kv_heads + head, index, part.parts);
}

template <typename Source, int kChunks>
void launch_as(Floats<kChunks>, const DeviceCall& call, const Split& split, cudaStream_t stream) {
  using F = Floats<kChunks>;
  const dim3 grid(static_cast<unsigned>(split.tiles * call.kv_heads),
                  static_cast<unsigned>(split.splits));
  launch(attend<Source, kChunks>, grid, F::kThreads, F::shared_bytes(static_cast<int>(call.dim)),
         stream, call, split);
}

template <typename F>
Split one_block_a_tile(F, const DeviceCall& call) {
  return {1, F::kRows, tile_count(call, F::kRows)};
}

}  // namespace

Split split_of_floats(const DeviceCall& call) {
  return with_floats(call.dim, [&](auto floats) {
    using F = decltype(floats);
    Split split = one_block_a_tile(floats, call);
    if (call.tokens > call.sequences) return split;  // rows enough, and sums of all would be many
    const int blocks = blocks_at_once(F::shared_bytes(static_cast<int>(call.dim)));
    split.splits = split_count(call.sequences * call.kv_heads, call.pages, F::kLeastPages, blocks);
    return split;
  });
}

void attend_floats(const DeviceCall& call, const Split& split, cudaStream_t stream) {
  with_floats(call.dim, [&](auto floats) {
    with_kv_type(call.kv_type, [&](auto item) {
      launch_as<PagedSource<decltype(item)>>(floats, call, split, stream);
    });
  });
}

void attend_plain(const DeviceCall& call, cudaStream_t stream) {
  with_floats(call.dim, [&](auto floats) {
    launch_as<PlainSource>(floats, call, one_block_a_tile(floats, call), stream);
  });
}

}  // namespace ingot::cuda

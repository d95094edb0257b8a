// Writes new K and V into a paged cache, whose layout is custom_ops/kv_layout.py's.
#include "attention_launch.h"
#include "attention_types.h"

namespace ingot::cuda {
namespace {

constexpr int kWriteThreads = 128;
// Tokens of a block of threads, for one KV head: those of a page, or where there are few fewer, for
// a block then waits a quarter as often for memory.
constexpr int kManyTokens = 16, kFewTokens = 4;

__device__ __forceinline__ void store_as(float* to, float x) { *to = x; }
__device__ __forceinline__ void store_as(Half* to, float x) { *to = to_half(x); }
__device__ __forceinline__ void store_as(Bfloat* to, float x) { *to = to_bfloat(x); }

// x / scale to nearest, ties to even; 0 where the scale is 0 or NaN. As csrc/support/int8.h's.
__device__ int8_t code_of(float x, float scale) {
  if (!(scale > 0.0f)) return 0;
  return static_cast<int8_t>(fminf(fmaxf(rintf(quotient(x, scale)), -127.0f), 127.0f));
}

// max |x| / 127 of each token's vector, or NaN where it holds NaN or infinity, for all threads of
// the block: thread i's x(token i % kTokens, d) for d = i / kTokens and so on.
template <int kTokens, typename X>
__device__ void find_scales(float* scales, uint32_t* largest, int dim, const X& x) {
  const int token = threadIdx.x % kTokens;
  uint32_t bits = 0;  // as integers, sizes are in order, and NaN above infinity above the rest
  for (int d = threadIdx.x / kTokens; d < dim; d += kWriteThreads / kTokens) {
    bits = max(bits, as_bits(x(token, d)) & 0x7fffffffu);
  }
  largest[threadIdx.x] = bits;
  __syncthreads();
  if (threadIdx.x < kTokens) {
    for (int i = threadIdx.x; i < kWriteThreads; i += kTokens) bits = max(bits, largest[i]);
    scales[threadIdx.x] = bits < 0x7f800000u ? quotient(as_float(bits), 127.0f) : NAN;
  }
  __syncthreads();
}

// A token of no sequence, or of one of length 0, gets zeros for the KV head's query heads.
__device__ void clear_if_padding(const DeviceCall& call, int64_t token, int64_t kv_head) {
  const int64_t sequence = sequence_of_token(call, token);
  if (sequence >= 0 && (!call.causal || call.seq_lens[sequence] != 0)) return;
  const int64_t floats = call.group_size * call.dim;
  float* out = call.out + token * call.query_heads * call.dim + kv_head * floats;
  for (int64_t i = threadIdx.x; i < floats; i += blockDim.x) out[i] = 0.0f;
}

// Blocks x: kTokens tokens each; y: KV heads. What other kernels of the call begin with is done
// here too: tokens of no sequence get zeros, and so do the `counters`.
template <typename T, int kTokens>
__global__ void __launch_bounds__(kWriteThreads)
    write(DeviceCall call, int* counters, int64_t counter_count) {
  constexpr bool kCodes = sizeof(T) == 1;
  __shared__ uint32_t largest[kWriteThreads];
  __shared__ float k_scales[kTokens], v_scales[kTokens];
  const int dim = static_cast<int>(call.dim);
  const int64_t head = blockIdx.y, first = static_cast<int64_t>(blockIdx.x) * kTokens;
  const int tokens = static_cast<int>(min(call.tokens - first, static_cast<int64_t>(kTokens)));
  const int64_t part = call.head_bytes / 2;

  const int64_t blocks = static_cast<int64_t>(gridDim.x) * gridDim.y;
  const int64_t thread =
      (static_cast<int64_t>(blockIdx.y) * gridDim.x + blockIdx.x) * kWriteThreads + threadIdx.x;
  for (int64_t i = thread; i < counter_count; i += blocks * kWriteThreads) counters[i] = 0;

  const auto key = [&](int token, int d) {
    if (token >= tokens) return 0.0f;
    return turned(call.rotary, vector_of(call.k, first + token, head), d, first + token);
  };
  const auto value = [&](int token, int d) {
    return token < tokens ? vector_of(call.v, first + token, head)[d] : 0.0f;
  };
  const auto slot_of = [&](int token) {
    return token < tokens ? call.slot_mapping[first + token] : int64_t{-1};
  };
  const auto part_of = [&](int64_t slot) {
    return call.cache + slot / kBlock * call.cache_stride + head * call.head_bytes;
  };

  if constexpr (kCodes) {
    find_scales<kTokens>(k_scales, largest, dim, key);
    find_scales<kTokens>(v_scales, largest, dim, value);
    const int64_t slot = threadIdx.x < kTokens ? slot_of(threadIdx.x) : -1;
    if (slot >= 0) {
      reinterpret_cast<float*>(part_of(slot))[slot % kBlock] = k_scales[threadIdx.x];
      reinterpret_cast<float*>(part_of(slot) + part)[slot % kBlock] = v_scales[threadIdx.x];
    }
  }
  constexpr int64_t kItems = kCodes ? kScaleBytes : 0;  // where a part's items begin

  // K is [dim][16]: neighbouring threads write neighbouring tokens, as they mostly lie in a page.
  const int token = threadIdx.x % kTokens;
  if (const int64_t slot = slot_of(token); slot >= 0) {
    T* to = reinterpret_cast<T*>(part_of(slot) + kItems) + slot % kBlock;
    for (int d = threadIdx.x / kTokens; d < dim; d += kWriteThreads / kTokens) {
      if constexpr (kCodes) {
        to[d * kBlock] = code_of(key(token, d), k_scales[token]);
      } else {
        store_as(to + d * kBlock, key(token, d));
      }
    }
  }
  // V is [16][dim]: neighbouring threads write neighbouring dimensions.
  for (int t = 0; t < tokens; t++) {
    const int64_t slot = slot_of(t);
    if (slot < 0) continue;
    T* to = reinterpret_cast<T*>(part_of(slot) + part + kItems) + slot % kBlock * dim;
    for (int d = threadIdx.x; d < dim; d += kWriteThreads) {
      if constexpr (kCodes) {
        to[d] = code_of(value(t, d), v_scales[t]);
      } else {
        store_as(to + d, value(t, d));
      }
    }
  }

  for (int t = 0; t < tokens; t++) clear_if_padding(call, first + t, head);
}

// Blocks x: tokens; y: KV heads.
__global__ void __launch_bounds__(kWriteThreads) clear(DeviceCall call) {
  clear_if_padding(call, blockIdx.x, blockIdx.y);
}

}  // namespace

void write_tokens(const DeviceCall& call, const Split& split, cudaStream_t stream) {
  const int64_t counters = split.done != nullptr ? split.tiles * call.kv_heads : 0;
  const auto launch_with = [&](auto kernel, int tokens) {
    const dim3 grid(static_cast<unsigned>(divide_up(call.tokens, tokens)),
                    static_cast<unsigned>(call.kv_heads));
    launch(kernel, grid, kWriteThreads, 0, stream, call, split.done, counters);
  };
  with_kv_type(call.kv_type, [&](auto item) {
    using T = decltype(item);
    if (call.tokens <= 64) return launch_with(write<T, kFewTokens>, kFewTokens);
    launch_with(write<T, kManyTokens>, kManyTokens);
  });
}

void clear_padding(const DeviceCall& call, cudaStream_t stream) {
  const dim3 grid(static_cast<unsigned>(call.tokens), static_cast<unsigned>(call.kv_heads));
  launch(clear, grid, kWriteThreads, 0, stream, call);
}

}  // namespace ingot::cuda

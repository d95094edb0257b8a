// A page of the KV cache, one KV head's, in shared memory: how it gets there, and how tensor cores
// read it. For 16-bit caches and for int8 codes, which are exact in bfloat16.
//
// Rows of K [D][16 tokens] and V [16 tokens][D] both run along the columns of the mma's B, so
// ldmatrix transposes them. A row's chunks of 16 bytes are permuted so that eight rows of a
// matrix lie in different banks.
//
// Of codes, ldmatrix moves two as one, and a lane gets those of the columns 2c and 2c + 1 where it
// needs one of column c: the even columns become one matrix of 8 columns, the odd another. Tokens
// and dimensions are so reordered within their 16, see place_in_16, and V's rows lie in shared
// memory in the order that K's columns are in.
#pragma once

#include <type_traits>

#include "attention_rows.h"

namespace ingot::cuda {

// Bytes from the beginning of rows of `kChunks` chunks to a chunk.
template <int kChunks>
__device__ __forceinline__ int at_chunk(int row, int chunk) {
  constexpr int kApart = kChunks % 8 == 0 ? 8 : kChunks % 4 == 0 ? 4 : kChunks % 2 == 0 ? 2 : 1;
  const int turned = chunk % kApart ^ row / (8 / kApart) % kApart;
  return (row * kChunks + chunk / kApart * kApart + turned) * 16;
}

template <typename T, int kDim>
struct Page {
  static constexpr bool kCodes = sizeof(T) == 1;
  // What tensor cores multiply.
  using Pairs = std::conditional_t<std::is_same_v<T, Half>, HalfPairs, BfloatPairs>;

  static constexpr int kScaleBytes =
      kCodes ? 4 * kPageTokens : 0;  // before the items of K and of V
  static constexpr int kPartBytes = kScaleBytes + kPageTokens * kDim * int{sizeof(T)};
  static constexpr int kKeyChunks = kPageTokens * int{sizeof(T)} / 16;  // of a row
  static constexpr int kValueChunks = kDim * int{sizeof(T)} / 16;
  static constexpr int kSteps = kDim / 16;

  // Of 16 tokens or dimensions, which one is column 2 t + i of the matrix j.
  static __device__ __forceinline__ int place_in_16(int j, int i, int t) {
    return kCodes ? 4 * t + 2 * i + j : 8 * j + 2 * t + i;
  }

  // K and V from a page in the cache, by kThreads threads. Of a token that `seen` denies, V is
  // zero: its weight is too, but 0 times NaN is not.
  template <int kThreads>
  static __device__ __forceinline__ void copy_keys(char* to, const char* page, int thread) {
    copy_scales<kThreads>(to, page, thread);
#pragma unroll 4
    for (int i = thread; i < kDim * kKeyChunks; i += kThreads) {
      copy_async(to + kScaleBytes + at_chunk<kKeyChunks>(i / kKeyChunks, i % kKeyChunks),
                 page + kScaleBytes + 16 * i);
    }
  }
  template <int kThreads, typename Seen>
  static __device__ __forceinline__ void copy_values(char* to, const char* page, int thread,
                                                     const Seen& seen) {
    const char* part = page + kPartBytes;
    copy_scales<kThreads>(to, part, thread);
#pragma unroll 4
    for (int i = thread; i < kPageTokens * kValueChunks; i += kThreads) {
      const int token = i / kValueChunks;
      const int row = kCodes ? token % 2 * 8 + token / 2 : token;
      copy_async(to + kScaleBytes + at_chunk<kValueChunks>(row, i % kValueChunks),
                 part + kScaleBytes + 16 * i, seen(token) ? 16 : 0);
    }
  }

  // B's fragments for the dimensions [16 step, 16 (step + kUnit)), of which kDim may end the second
  // half: b[u] holds b0 and b1 of the matrix 0, then of 1, for K (dimensions by tokens) ...
  static constexpr int kUnit = kCodes ? 2 : 1;
  using Fragments = uint32_t[kUnit][4];
  static __device__ __forceinline__ void load_keys(Fragments& b, const char* keys, int step,
                                                   int lane) {
    if constexpr (kCodes) {
      const int row = min(16 * step + lane, kDim - 1);
      load_codes(b, keys + kScaleBytes + at_chunk<kKeyChunks>(row, 0));
    } else {
      load_matrices_transposed(b[0], keys + at_chunk<kKeyChunks>(16 * step + lane % 16, lane / 16));
    }
  }
  // ... and for V (tokens by dimensions).
  static __device__ __forceinline__ void load_values(Fragments& b, const char* values, int step,
                                                     int lane) {
    if constexpr (kCodes) {
      const int chunk = min(step + lane / 16, kValueChunks - 1);
      load_codes(b, values + kScaleBytes + at_chunk<kValueChunks>(lane % 16, chunk));
    } else {
      load_matrices_transposed(b[0],
                               values + at_chunk<kValueChunks>(lane % 16, 2 * step + lane / 16));
    }
  }

  // The scale of a token's K or V.
  static __device__ __forceinline__ float scale_of(const char* part, int token) {
    return reinterpret_cast<const float*>(part)[token];
  }

 private:
  template <int kThreads>
  static __device__ __forceinline__ void copy_scales(char* to, const char* from, int thread) {
    if constexpr (kCodes) {
      if (thread < kScaleBytes / 16) copy_async(to + 16 * thread, from + 16 * thread);
    }
  }

  static __device__ __forceinline__ void load_codes(Fragments& b, const char* row) {
    uint32_t codes[4];
    load_matrices_transposed(codes, row);
#pragma unroll
    for (int i = 0; i < 4; i++) {
      b[i / 2][i % 2] = as_bfloats(select_bytes(codes[i], 0x43434343, 0x4240));
      b[i / 2][2 + i % 2] = as_bfloats(select_bytes(codes[i], 0x43434343, 0x4341));
    }
  }

  // Two bytes c below 0x43 each: the low seven bits make 128 + c % 128 of bfloat16, from which
  // 128 is taken, or 256 where the eighth bit is c's sign.
  static __device__ __forceinline__ uint32_t as_bfloats(uint32_t bytes) {
    return add_bfloats(bytes & 0xff7fff7f, (bytes & 0xff80ff80) ^ 0x80008000);
  }
};

}  // namespace ingot::cuda

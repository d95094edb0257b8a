// A step of attention by vectors, in float32: the scores of a tile's rows, their softmax, and the
// sums of the values.
#pragma once

#include <utility>

#include "attention_softmax.h"

namespace ingot::INGOT_LEVEL {
namespace {

constexpr int64_t kScoreDepth = 32;  // terms of a score in one sum

// How a tile is cut for the registers: rows, and vectors of each, whose sums they hold together.
// Many rows: K and V come from the caches, the products are what takes time.
struct ManyRows {
  static constexpr int kRows = kLanes == 4 ? 4 : 6;
  static constexpr int kVectors = kLanes == 16 ? 4 : 2;
  static constexpr int kSums = kLanes == 16 ? 2 : 1;  // of a score at once, over half the vectors
  static constexpr bool kFetch = false;
};

// Few rows: K and V come from memory, each is read by all rows at once, and the blocks one step
// ahead are fetched meanwhile.
struct FewRows {
  static constexpr int kLimit = 12;
  static constexpr int kRows = kLanes == 16 ? 8 : 4;
  static constexpr int kVectors = 2;
  static constexpr int kSums = 1;
  static constexpr bool kFetch = true;
};

// Calls body(i, std::integral_constant<int, size>) for runs of `size`: kLargest, then half of it
// (or 2 for 6) and so on down to 1.
template <int kLargest, typename Body>
inline void for_runs(int begin, int end, Body body) {
  for (; begin + kLargest <= end; begin += kLargest) {
    body(begin, std::integral_constant<int, kLargest>());
  }
  if constexpr (kLargest > 1) for_runs<(kLargest == 6 ? 2 : kLargest / 2)>(begin, end, body);
}

// The two products are functions of their own: inlined, the compiler keeps their sums in memory.

// weights[r][0..kVectors * kLanes) = q[r] . K of the tokens from `token`, for kRows rows. Runs of
// up to 2 kScoreDepth terms are added up as the sums of their halves, which keeps the rounding
// error of a large head_dim down.
template <typename Cut, int kRows, int kVectors, typename T>
[[gnu::noinline]] void multiply_keys(const float (*q)[kRowFloats], const BlockView<T>* blocks,
                                     int token, int64_t dim, float (*weights)[kStepTokens],
                                     Ahead& ahead) {
  constexpr int kSums = Cut::kSums;
  const T* keys[kVectors];
#pragma GCC unroll 4
  for (int v = 0; v < kVectors; v++) {
    const BlockView<T>& block = blocks[(token + v * kLanes) / kBlock];
    keys[v] = block.k + (token + v * kLanes) % kBlock;
  }
  for (int64_t begin = 0; begin < dim; begin += 2 * kScoreDepth) {
    const bool whole = dim - begin >= 2 * kScoreDepth;
    const int64_t half = whole ? kScoreDepth : (dim - begin) / 2;
    for (int first = 0; first < 2; first += kSums) {
      Vec acc[kSums][kRows][kVectors] = {};
      const auto add = [&](int s, int64_t d) {
        if constexpr (Cut::kFetch) {
          if (d % kFetchEvery == 0) ahead.fetch();
        }
        Vec key[kVectors];
#pragma GCC unroll 4
        for (int v = 0; v < kVectors; v++) {
          key[v] = load_floats(keys[v] + d * kBlock);
        }
#pragma GCC unroll 8
        for (int r = 0; r < kRows; r++) {
          const Vec query = broadcast(q[r][d]);
#pragma GCC unroll 4
          for (int v = 0; v < kVectors; v++) acc[s][r][v] += query * key[v];
        }
      };
      const int64_t from = begin + first * half;
      for (int64_t d = from; d < from + half; d++) {
#pragma GCC unroll 2
        for (int s = 0; s < kSums; s++) add(s, d + s * half);
      }
      if (first == 0 && !whole && dim % 2 != 0) add(0, dim - 1);
#pragma GCC unroll 8
      for (int r = 0; r < kRows; r++) {
#pragma GCC unroll 4
        for (int v = 0; v < kVectors; v++) {
          float* to = weights[r] + token + v * kLanes;
          Vec sum = begin + first == 0 ? acc[0][r][v] : load<Vec>(to) + acc[0][r][v];
          if constexpr (kSums == 2) sum += acc[1][r][v];
          store(to, sum);
        }
      }
    }
  }
}

// acc[r] += weights[r] . V over the step's tokens [from, to), at dimension d.
template <bool kFetch, int kRows, int kColumns, typename T>
[[gnu::always_inline]] inline void multiply_values(const float (*weights)[kStepTokens],
                                                   const BlockView<T>* blocks, int from, int to,
                                                   int64_t d, Vec (&acc)[kRows][kColumns],
                                                   Ahead& ahead) {
  for (int t = from; t < to;) {
    const BlockView<T>& block = blocks[t / kBlock];
    const int64_t stride = block.v_stride;
    const T* v = block.v + t % kBlock * stride + d;
    const int end = (t / kBlock + 1) * kBlock < to ? (t / kBlock + 1) * kBlock : to;
    for (; t < end; t++, v += stride) {
      if constexpr (kFetch) {
        if (t % kFetchEvery == 0) ahead.fetch();
      }
      Vec values[kColumns];
#pragma GCC unroll 4
      for (int c = 0; c < kColumns; c++) {
        values[c] = load_floats(v + c * kLanes);
      }
#pragma GCC unroll 8
      for (int r = 0; r < kRows; r++) {
        const Vec weight = broadcast(weights[r][t]);
#pragma GCC unroll 4
        for (int c = 0; c < kColumns; c++) acc[r][c] += weight * values[c];
      }
    }
  }
}

// sums[r] = sums[r] * rescale[r] + weights[r] . V over the tokens [from, to).
template <bool kFetch, int kRows, int kColumns, typename T>
[[gnu::noinline]] void add_values(const float (*weights)[kStepTokens], const BlockView<T>* blocks,
                                  int from, int to, int64_t d, const float* rescale,
                                  float (*sums)[kRowFloats], Ahead& ahead) {
  Vec acc[kRows][kColumns] = {};
  multiply_values<kFetch>(weights, blocks, from, to, d, acc, ahead);
#pragma GCC unroll 8
  for (int r = 0; r < kRows; r++) {
#pragma GCC unroll 4
    for (int c = 0; c < kColumns; c++) {
      float* sum = sums[r] + d + c * kLanes;
      store(sum, load<Vec>(sum) * rescale[r] + acc[r][c]);
    }
  }
}

// sums = sums * rescale + weights times V for kRows rows that see the same tokens of the step.
template <typename Cut, int kRows, typename T, int kCapacity>
void accumulate(TileOf<kCapacity>& tile, int row, const StepBlocks<T>& blocks, int64_t padded_dim) {
  for_runs<Cut::kVectors>(0, static_cast<int>(padded_dim / kLanes), [&](int c, auto columns) {
    add_values<Cut::kFetch, kRows, columns>(tile.weights + row, blocks, tile.begin[row],
                                            tile.end[row], c * kLanes, tile.rescale + row,
                                            tile.segment.sums + row, tile.ahead);
  });
}

// Adds the blocks [from, to) of a step to the rows that see them.
template <typename Cut, typename T, int kCapacity>
void add_blocks(TileOf<kCapacity>& tile, const StepBlocks<T>& blocks, int from, int to,
                const Scores& how) {
  constexpr int kBlockVectors = kBlock / kLanes, kVectors = Cut::kVectors / Cut::kSums;
  for_runs<Cut::kRows>(0, tile.rows, [&](int row, auto rows) {
    for_runs<kVectors>(from * kBlockVectors, to * kBlockVectors, [&](int v, auto vectors) {
      multiply_keys<Cut, rows, vectors>(tile.q + row, blocks, v * kLanes, how.dim,
                                        tile.weights + row, tile.ahead);
    });
  });
  soften(tile, how);
  for_runs<Cut::kRows>(0, tile.rows, [&](int row, auto rows) {
    bool same = true;
    for (int r = 1; r < rows; r++) {
      same &= tile.begin[row + r] == tile.begin[row] && tile.end[row + r] == tile.end[row];
    }
    if (same) return accumulate<Cut, rows>(tile, row, blocks, padded(how.dim));
    for (int r = row; r < row + rows; r++) {
      accumulate<Cut, 1>(tile, r, blocks, padded(how.dim));
    }
  });
}

// Adds the tokens from `position`, a multiple of kStepTokens, to the rows that see them.
template <typename Cut, typename T, typename View, int kCapacity>
void add_step(TileOf<kCapacity>& tile, int64_t position, const Scores& how, View view) {
  const auto [begin, end] = see(tile, position);
  if (begin >= end) return;
  StepBlocks<T> blocks;
  // The calls of fetch() for a whole step: beside the products, and for the rows' maxima and
  // weights.
  tile.ahead = Ahead(padded(how.dim) + fetches_of_maxima(tile.rows) + tile.rows);
  const auto [from, to] = take_blocks(tile, position, begin, end, view, blocks);
  if constexpr (!Cut::kFetch) tile.ahead = {};
  add_blocks<Cut>(tile, blocks, from, to, how);
}

// Adds to `tile.segment` what the rows see between the positions `begin` and `end`.
template <typename Cut, typename T, typename View, int kCapacity>
void walk(TileOf<kCapacity>& tile, const Scores& how, int64_t begin, int64_t end, View view) {
  walk_steps(tile, begin, end, [&](int64_t p) { add_step<Cut, T>(tile, p, how, view); });
}

}  // namespace
}  // namespace ingot::INGOT_LEVEL

// A matrix packed by `pack_linear` (custom_ops/linear.py): panels of 64 rows, K-major inside.
#pragma once

#include "support.h"

namespace ingot {

inline constexpr int64_t kPanel = 64;

// weight [N, K] as panels [ceil(N/64)][ceil(K/step)][64] of 32-bit words: a float32, or two
// bfloat16 of which the low half is the even k. Rows beyond N and an odd K's last half are zero.
struct PackedWeight {
  const uint32_t* words;
  int64_t panels;
  int64_t depth;  // K
  int64_t step;   // values of k in a word: 1 or 2

  int64_t panel_words() const { return (depth + step - 1) / step * kPanel; }
};

// Throws unless `weight` is a contiguous packed matrix of `depth` columns.
PackedWeight packed_weight(const DLTensor* weight, int64_t depth);

// Throws unless every token is a row of `panels` panels.
void check_tokens(const int64_t* tokens, int64_t count, int64_t panels);

}  // namespace ingot

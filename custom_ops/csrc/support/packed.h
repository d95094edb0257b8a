// A matrix packed by `pack_linear` (custom_ops/linear.py): panels of 64 rows, K-major inside.
#pragma once

#include "activated.h"
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

// A call of linear, activated or not.
struct PackedLinear {
  const float* x;
  int64_t x_stride;
  PackedWeight weight;
  const float* bias;  // or null
  float* out;
  int64_t rows;
  int64_t columns;  // of the weight
  Activated activated;

  int64_t outputs() const { return activated.outputs(columns); }
};

// Checks the arguments; false if only the output's shape was asked for.
bool read_call(const DLTensor* x, const DLTensor* weight, const DLTensor* bias,
               int64_t out_features, Activated activated, DLTensor* out, PackedLinear* call);

// Throws unless every token is a row of `panels` panels.
void check_tokens(const int64_t* tokens, int64_t count, int64_t panels);

}  // namespace ingot

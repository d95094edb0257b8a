// A quantised matrix in the B64 layout (custom_ops/quantised_layout.py): panels of 64 rows, each
// cut into blocks of one group of columns with its scales, zero points or multipliers, and codes.
#pragma once

#include "packed.h"

namespace ingot {

constexpr int64_t kMultiplied = 32;  // columns that share a multiplier
constexpr int64_t kMultipliers = 4;  // of a row's group, where a layout has them
constexpr int64_t kMostGroup = kMultiplied * kMultipliers;  // columns of the largest groups

struct QuantisedWeight {
  const uint8_t* blocks;
  int64_t panels;
  int64_t groups;
  int64_t group_size;
  int64_t block_bytes;
  int64_t codes_offset;  // in a block
  bool float_scales;     // else float16
  bool zero_points;      // else 2^(bits - 1)
  bool multipliers;      // of groups of kMostGroup columns, each of kMultiplied

  const uint8_t* block(int64_t panel, int64_t group) const {
    return blocks + (panel * groups + group) * block_bytes;
  }
  int64_t behind_scales() const { return kPanel * (float_scales ? 4 : 2); }
};

// A call of linear_w4 or linear_w8, activated or not.
struct QuantisedLinear {
  const float* x;
  int64_t x_stride;
  int64_t depth;  // K
  QuantisedWeight weight;
  int32_t middle;             // the zero point of all where the weight holds none
  int64_t passes;             // 2: what rounding leaves of x is rounded too, and multiplied
  const float* bias;          // or null
  const float* input_scale;   // or null
  const int64_t* input_perm;  // or null
  float* out;
  int64_t rows;
  int64_t columns;  // of the weight
  Activated activated;

  int64_t outputs() const { return activated.outputs(columns); }
};

// Throws unless `weight` is a contiguous packed matrix of `bits`-bit codes and `depth` columns.
QuantisedWeight quantised_weight(const DLTensor* weight, int64_t bits, int64_t depth);

// Checks the arguments; false if only the output's shape was asked for.
bool read_call(const DLTensor* x, const DLTensor* weight, const DLTensor* bias,
               const DLTensor* input_scale, const DLTensor* input_perm, int64_t out_features,
               int64_t activation_bits, int64_t bits, Activated activated, DLTensor* out,
               QuantisedLinear* call);

}  // namespace ingot

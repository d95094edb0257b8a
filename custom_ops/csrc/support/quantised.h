// A quantised matrix in the B64 layout (custom_ops/quantised_layout.py): panels of 64 rows, each
// cut into blocks of one group of columns with its scales, zero points and codes.
#pragma once

#include "packed.h"

namespace ingot {

struct QuantisedWeight {
  const uint8_t* blocks;
  int64_t panels;
  int64_t groups;
  int64_t group_size;
  int64_t block_bytes;
  int64_t codes_offset;  // in a block
  bool float_scales;     // else float16
  bool zero_points;      // else 2^(bits - 1)

  const uint8_t* block(int64_t panel, int64_t group) const {
    return blocks + (panel * groups + group) * block_bytes;
  }
  int64_t zeros_offset() const { return kPanel * (float_scales ? 4 : 2); }
};

// Throws unless `weight` is a contiguous packed matrix of `bits`-bit codes and `depth` columns.
QuantisedWeight quantised_weight(const DLTensor* weight, int64_t bits, int64_t depth);

}  // namespace ingot

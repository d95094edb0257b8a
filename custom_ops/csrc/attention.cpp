// attention: as exact as in float32; see custom_ops/attention.py.
#include "bidirectional.h"
#include "ops.h"

namespace ingot::INGOT_LEVEL {

void attention(const DLTensor* q, const DLTensor* k, const DLTensor* v, const DLTensor* query_start,
               double scale, DLTensor* out0) {
  attend_both_ways<kExactParts>(q, k, v, query_start, scale, out0);
}

}  // namespace ingot::INGOT_LEVEL

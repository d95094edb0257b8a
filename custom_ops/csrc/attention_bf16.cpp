// attention_bf16: tiles multiply what is rounded to bfloat16; see custom_ops/attention_bf16.py.
#include "bidirectional.h"
#include "ops.h"

namespace ingot::INGOT_LEVEL {

void attention_bf16(const DLTensor* q, const DLTensor* k, const DLTensor* v,
                    const DLTensor* query_start, double scale, DLTensor* out0) {
  attend_both_ways<1>(q, k, v, query_start, scale, out0);
}

}  // namespace ingot::INGOT_LEVEL

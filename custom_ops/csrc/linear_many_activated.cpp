// linear_many_activated: linear_many, and an activation of what it gives; see
// custom_ops/linear_many_activated.py.
#include "linear.h"
#include "ops.h"

namespace ingot::INGOT_LEVEL {

void linear_many_activated(const DLTensor* x, const DLTensor* weight, const DLTensor* bias,
                           int64_t out_features, const char* activation, int32_t gated,
                           DLTensor* out0) {
  PackedLinear call;
  if (read_call(x, weight, bias, out_features, activated_by(activation, gated != 0, out_features),
                out0, &call)) {
    run_linear_many(call);
  }
}

}  // namespace ingot::INGOT_LEVEL

// linear_w4: x times a matrix of 4-bit codes; see custom_ops/linear_w4.py.
#include "ops.h"
#include "quantised_linear.h"
#include "quantised_products.h"

namespace ingot::INGOT_LEVEL {

void multiply_w4(const QuantisedLinear& call, int64_t activation_bits) {
  if (activation_bits == 8) return run<Nibbles8>(call);
  run<Nibbles16>(call);
}

void linear_w4(const DLTensor* x, const DLTensor* weight, const DLTensor* bias,
               const DLTensor* input_scale, const DLTensor* input_perm, int64_t out_features,
               int64_t activation_bits, DLTensor* out0) {
  QuantisedLinear call;
  if (read_call(x, weight, bias, input_scale, input_perm, out_features, activation_bits, 4, {},
                out0, &call)) {
    multiply_w4(call, activation_bits);
  }
}

}  // namespace ingot::INGOT_LEVEL

// linear_w4_activated: linear_w4, and an activation of what it gives; see
// custom_ops/linear_w4_activated.py.
#include "activate.h"
#include "cuda_ops.h"
#include "linear.h"

namespace ingot::cuda {

void linear_w4_activated(const DLTensor* x, const DLTensor* weight, const DLTensor* bias,
                         const DLTensor* input_scale, const DLTensor* input_perm,
                         int64_t out_features, int64_t activation_bits, const char* activation,
                         int32_t gated, DLTensor* out0, cudaStream_t stream) {
  QuantisedLinear call;
  if (!read_call(x, weight, bias, input_scale, input_perm, out_features, activation_bits, 4,
                 activated_by(activation, gated != 0, out_features), out0, &call)) {
    return;
  }
  multiply_activated(call, stream, [&](const QuantisedLinear& product) {
    multiply_w4(product, activation_bits, stream);
  });
}

}  // namespace ingot::cuda

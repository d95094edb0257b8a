// activated_linear_w4: linear_w4 of what an activation makes of x; see
// custom_ops/activated_linear_w4.py.
#include "activate.h"
#include "cuda_ops.h"
#include "linear.h"

namespace ingot::cuda {

void activated_linear_w4(const DLTensor* x, const DLTensor* weight, const DLTensor* bias,
                         const DLTensor* input_scale, const DLTensor* input_perm,
                         int64_t out_features, int64_t activation_bits, const char* activation,
                         int32_t gated, DLTensor* out0, cudaStream_t stream) {
  QuantisedLinear call;
  if (!read_call(x, weight, bias, input_scale, input_perm, out_features, activation_bits, 4,
                 activated_by(activation, gated != 0), out0, &call)) {
    return;
  }
  const Workspace rows(activated_bytes(call), stream);
  activate(&call, rows.at<float>(0), stream);
  multiply_w4(call, activation_bits, stream);
}

}  // namespace ingot::cuda

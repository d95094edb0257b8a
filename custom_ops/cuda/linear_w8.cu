// linear_w8: x times a matrix of 8-bit codes; see custom_ops/linear_w8.py.
#include "cuda_ops.h"
#include "linear.h"

namespace ingot::cuda {

void multiply_w8(const QuantisedLinear& call, int64_t activation_bits, cudaStream_t stream) {
  quantised_linear<8>(call, activation_bits, stream);
}

void linear_w8(const DLTensor* x, const DLTensor* weight, const DLTensor* bias,
               const DLTensor* input_scale, const DLTensor* input_perm, int64_t out_features,
               int64_t activation_bits, DLTensor* out0, cudaStream_t stream) {
  QuantisedLinear call;
  if (read_call(x, weight, bias, input_scale, input_perm, out_features, activation_bits, 8, {},
                out0, &call)) {
    multiply_w8(call, activation_bits, stream);
  }
}

}  // namespace ingot::cuda

// linear_activated: linear, and an activation of what it gives; see
// custom_ops/linear_activated.py.
#include "activate.h"
#include "cuda_ops.h"
#include "linear.h"

namespace ingot::cuda {

void linear_activated(const DLTensor* x, const DLTensor* weight, const DLTensor* bias,
                      int64_t out_features, const char* activation, int32_t gated, DLTensor* out0,
                      cudaStream_t stream) {
  PackedLinear call;
  if (!read_call(x, weight, bias, out_features, activated_by(activation, gated != 0, out_features),
                 out0, &call)) {
    return;
  }
  multiply_activated(call, stream, [&](const PackedLinear& product) { multiply(product, stream); });
}

}  // namespace ingot::cuda

// linear_many_activated: see custom_ops/linear_many_activated.py. As linear_activated.
#include "cuda_ops.h"

namespace ingot::cuda {

void linear_many_activated(const DLTensor* x, const DLTensor* weight, const DLTensor* bias,
                           int64_t out_features, const char* activation, int32_t gated,
                           DLTensor* out0, cudaStream_t stream) {
  linear_activated(x, weight, bias, out_features, activation, gated, out0, stream);
}

}  // namespace ingot::cuda

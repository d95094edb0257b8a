// linear_many: see custom_ops/linear_many.py. As linear.
#include "cuda_ops.h"

namespace ingot::cuda {

void linear_many(const DLTensor* x, const DLTensor* weight, const DLTensor* bias,
                 int64_t out_features, DLTensor* out0, cudaStream_t stream) {
  linear(x, weight, bias, out_features, out0, stream);
}

}  // namespace ingot::cuda

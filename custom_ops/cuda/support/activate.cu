#include "activate.h"

namespace ingot::cuda {
namespace {

__device__ __forceinline__ float activated(Activation function, float x) {
  switch (function) {
    case Activation::kSilu:
      return x / (1 + expf(-x));
    case Activation::kGelu:
      return 0.5f * x * (1 + erff(x * 0.70710678f));
    case Activation::kGeluTanh:
      return 0.5f * x * (1 + tanhf(0.79788456f * (x + 0.044715f * x * x * x)));
    default:
      return x;
  }
}

// to [rows, depth]: of x, whose rows lie `stride` apart.
__global__ void __launch_bounds__(256) activate_rows(const float* x, int64_t stride, Activated how,
                                                     int64_t rows, int64_t depth, float* to) {
  const int64_t index = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  if (index >= rows * depth) return;
  const float* from = x + index / depth * stride + index % depth;
  const float value = activated(how.function, *from);
  to[index] = how.gated ? value * from[depth] : value;
}

}  // namespace

void activate(QuantisedLinear* call, float* space, cudaStream_t stream) {
  const int64_t count = call->rows * call->depth;
  if (count > 0) {
    const dim3 blocks(static_cast<unsigned>(divide_up(count, 256)));
    launch(activate_rows, blocks, 256, 0, stream, call->x, call->x_stride, call->activated,
           call->rows, call->depth, space);
  }
  call->x = space;
  call->x_stride = call->depth;
  call->activated = {};
}

}  // namespace ingot::cuda

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

__global__ void __launch_bounds__(256) activate_rows(const float* sums, Activated how, int64_t rows,
                                                     int64_t columns, int64_t outputs, float* out) {
  const int64_t index = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  if (index >= rows * outputs) return;
  const float* from = sums + index / outputs * columns + index % outputs;
  const float value = activated(how.function, *from);
  out[index] = how.gated ? value * from[outputs] : value;
}

}  // namespace

void activate(const float* sums, const Activated& how, int64_t rows, int64_t columns, float* out,
              cudaStream_t stream) {
  const int64_t outputs = how.outputs(columns), count = rows * outputs;
  if (count == 0) return;
  const dim3 blocks(static_cast<unsigned>(divide_up(count, 256)));
  launch(activate_rows, blocks, 256, 0, stream, sums, how, rows, columns, outputs, out);
}

}  // namespace ingot::cuda

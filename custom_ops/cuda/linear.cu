// linear: x times a packed matrix; see custom_ops/linear.py.
#include "cuda_ops.h"
#include "linear.h"

namespace ingot::cuda {
namespace {

// float32 weights, by plain multiply-adds: tensor cores would round. A block has a panel of 64
// columns and 8 rows of x; its four slices of threads share k.
constexpr int kRows = 8;
constexpr int kSlices = 4;

__global__ void __launch_bounds__(kSlices* kPanel)
    multiply_floats(const float* weight, Product product) {
  __shared__ float sums[kSlices][kRows][kPanel];
  const int column = threadIdx.x % kPanel, slice = threadIdx.x / kPanel;
  const int64_t first_row = static_cast<int64_t>(blockIdx.y) * kRows, depth = product.x.depth;
  const float* panel = weight + static_cast<int64_t>(blockIdx.x) * depth * kPanel + column;
  float sum[kRows] = {};
  for (int64_t k = slice; k < depth; k += kSlices) {
    const float w = panel[k * kPanel];
#pragma unroll
    for (int r = 0; r < kRows; r++) {
      const int64_t row = first_row + r;
      if (row < product.x.count) sum[r] += product.x.data[row * product.x.stride + k] * w;
    }
  }
  for (int r = 0; r < kRows; r++) sums[slice][r][column] = sum[r];
  __syncthreads();
  const int64_t n = static_cast<int64_t>(blockIdx.x) * kPanel + column;
  for (int r = slice; r < kRows && n < product.columns; r += kSlices) {
    if (first_row + r >= product.x.count) break;
    float total = product.bias != nullptr ? product.bias[n] : 0;
    for (int s = 0; s < kSlices; s++) total += sums[s][r][column];
    product.out[(first_row + r) * product.columns + n] = total;
  }
}

}  // namespace

void multiply(const PackedLinear& call, cudaStream_t stream) {
  const Product product = {{call.x, call.x_stride, nullptr, nullptr, call.rows, call.weight.depth},
                           call.bias,
                           call.out,
                           call.columns};
  if (call.weight.step == 2) return multiply<1>(Bfloats::of(call.weight), product, stream);
  if (call.rows == 0 || call.columns == 0) return;
  const dim3 grid(static_cast<unsigned>(call.weight.panels),
                  static_cast<unsigned>(divide_up(call.rows, kRows)));
  launch(multiply_floats, grid, static_cast<unsigned>(kSlices * kPanel), 0, stream,
         reinterpret_cast<const float*>(call.weight.words), product);
}

void linear(const DLTensor* x, const DLTensor* weight, const DLTensor* bias, int64_t out_features,
            DLTensor* out0, cudaStream_t stream) {
  PackedLinear call;
  if (read_call(x, weight, bias, out_features, {}, out0, &call)) multiply(call, stream);
}

}  // namespace ingot::cuda

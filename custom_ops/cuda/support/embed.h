// What the embeddings share: rows of a packed matrix by token, whatever its values are.
#pragma once

#include "device.h"
#include "packed.h"

namespace ingot::cuda {

// A token outside of the matrix, which only the GPU can see, gives NaN.
template <typename Rows>
__global__ void __launch_bounds__(128)
    copy_rows(Rows rows, const int64_t* tokens, int64_t panels, int64_t dim, float* out) {
  const int64_t row = tokens[blockIdx.x];
  const bool known = row >= 0 && row < panels * kPanel;
  for (int64_t k = blockIdx.y * blockDim.x + threadIdx.x; k < dim; k += gridDim.y * blockDim.x) {
    out[blockIdx.x * dim + k] = known ? rows.value(row, k) : NAN;
  }
}

// out [T, dim] float32: rows.value(token, k).
template <typename Rows>
void embed(const DLTensor* tokens, const Rows& rows, int64_t panels, int64_t dim, DLTensor* out,
           cudaStream_t stream) {
  expect(tokens, "tokens", kInt64, {-1});
  expect_contiguous(tokens, "tokens", 1);
  const int64_t count = tokens->shape[0];
  if (wants_shape(out, kFloat32, {count, dim}) || count * dim == 0) return;
  const dim3 grid(static_cast<unsigned>(count), static_cast<unsigned>(divide_up(dim, 1024)));
  launch(copy_rows<Rows>, grid, 128, 0, stream, rows, data_of<const int64_t>(tokens), panels, dim,
         data_of<float>(out));
}

}  // namespace ingot::cuda

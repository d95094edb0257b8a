// What the linears do to their sums that end in an activation: the sums are written to a workspace,
// and read once more. A block of a product has too few columns to hold a gate's and those of what
// it gates, and the products without an activation keep their registers.
#pragma once

#include "activated.h"
#include "device.h"

namespace ingot::cuda {

// out [rows, columns], or where gated half as many: of sums [rows, columns].
void activate(const float* sums, const Activated& how, int64_t rows, int64_t columns, float* out,
              cudaStream_t stream);

// Multiplies by `multiply(call)`, and does that. Call: PackedLinear or QuantisedLinear.
template <typename Call, typename Multiply>
void multiply_activated(const Call& call, cudaStream_t stream, Multiply multiply) {
  const int64_t bytes = call.rows * call.columns * static_cast<int64_t>(sizeof(float));
  const Workspace sums(bytes, stream);
  Call product = call;
  product.out = sums.at<float>(0);
  product.activated = {};
  multiply(product);
  activate(product.out, call.activated, call.rows, call.columns, call.out, stream);
}

}  // namespace ingot::cuda

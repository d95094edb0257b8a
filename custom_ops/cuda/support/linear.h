// y = x W^T by tensor cores, for weights of any format of weight_formats.h.
//
// W is the left operand of mma, x^T the right: a weight is unpacked in the lane that loaded it, and
// few rows of x waste little of an instruction. x is split into bfloat16 parts (x = x0 + x1 + x2,
// each the rounded rest of those before), as many as `activation_bits` ask for; sums are float32,
// of integers times x inside of a group, which its scale multiplies at its end.
#pragma once

#include "linear_few_rows.h"
#include "linear_many_rows.h"

namespace ingot::cuda {

template <int kParts, typename Format>
void multiply(const Format& weight, const Product& product, cudaStream_t stream) {
  if (product.x.count == 0 || product.columns == 0) return;
  if (product.x.count <= 8) return few_rows<Format, kParts, 1>(weight, product, stream);
  if (product.x.count <= 32) return few_rows<Format, kParts, 4>(weight, product, stream);
  many_rows<Format, kParts>(weight, product, stream);
}

// linear, linear_w4 and linear_w8, each in its own file; of a call without an activation.
void multiply(const PackedLinear& call, cudaStream_t stream);
void multiply_w4(const QuantisedLinear& call, int64_t activation_bits, cudaStream_t stream);
void multiply_w8(const QuantisedLinear& call, int64_t activation_bits, cudaStream_t stream);

template <int kBits>
void quantised_linear(const QuantisedLinear& call, int64_t activation_bits, cudaStream_t stream) {
  const auto weight = Codes<kBits>::of(call.weight);
  const Product product = {
      {call.x, call.x_stride, call.input_scale, call.input_perm, call.rows, call.depth},
      call.bias,
      call.out,
      call.columns};
  if (activation_bits == 8) return multiply<1>(weight, product, stream);
  if (activation_bits == 16) return multiply<2>(weight, product, stream);
  multiply<3>(weight, product, stream);
}

}  // namespace ingot::cuda

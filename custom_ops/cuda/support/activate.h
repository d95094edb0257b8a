// What activated_linear_w4 and activated_linear_w8 do to x before they multiply as linear_w4 and
// linear_w8 do: once, into a workspace. Each block of a product reads all of x, and would compute
// all of it again; and the products without an activation keep their registers.
#pragma once

#include "device.h"
#include "quantised.h"

namespace ingot::cuda {

inline int64_t activated_bytes(const QuantisedLinear& call) {
  return call.rows * call.depth * static_cast<int64_t>(sizeof(float));
}

// Makes the call one of what the activation gives, which is written to `space`.
void activate(QuantisedLinear* call, float* space, cudaStream_t stream);

}  // namespace ingot::cuda

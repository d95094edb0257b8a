// The products of linear_w4 and linear_w8, each in the op's own file: activated_linear_w4 and
// activated_linear_w8 call them too.
#pragma once

#include "quantised.h"

namespace ingot::INGOT_LEVEL {

void multiply_w4(const QuantisedLinear& call, int64_t activation_bits);
void multiply_w8(const QuantisedLinear& call, int64_t activation_bits);

}  // namespace ingot::INGOT_LEVEL

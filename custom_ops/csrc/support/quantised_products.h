// The products of linear_w4 and linear_w8, each in the op's own file: linear_w4_activated and
// linear_w8_activated call them too.
#pragma once

#include "quantised.h"

namespace ingot::INGOT_LEVEL {

void multiply_w4(const QuantisedLinear& call, int64_t activation_bits);
void multiply_w8(const QuantisedLinear& call, int64_t activation_bits);

}  // namespace ingot::INGOT_LEVEL

// linear of arguments that are read already (linear.cpp).
#pragma once

#include "packed.h"

namespace ingot::INGOT_LEVEL {

void run_linear(const PackedLinear& call);

}  // namespace ingot::INGOT_LEVEL

// linear and linear_many of arguments that are read already, activated or not.
#pragma once

#include "packed.h"

namespace ingot::INGOT_LEVEL {

void run_linear(const PackedLinear& call);
void run_linear_many(const PackedLinear& call);

}  // namespace ingot::INGOT_LEVEL

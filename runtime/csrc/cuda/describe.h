#pragma once
#include <string>

namespace ingot::cuda {
// JSON of the GPUs and the driver, as `ingot_gpus` gives it. Throws Error where there are none.
std::string describe_gpus();
}  // namespace ingot::cuda

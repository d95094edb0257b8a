// What every file of generated kernels begins with.
#pragma once

#include <ingot/erf.h>
#include <torch/csrc/inductor/aoti_runtime/utils.h>
#include <torch/csrc/inductor/cpp_prefix.h>

// What a CPU multiplies and adds at most, by the instructions of an ISA level: what the kernels'
// speed is compared with.
#pragma once

#include <cstdint>

namespace ingot {

// What is multiplied; sums are float32, or 32-bit integers.
enum class Factor { float32, bfloat16, int8 };

// Each level's is in peak.cpp: multiplies and adds for some tenths of a millisecond, and returns
// how often, a multiplication and an addition being two.
namespace v2 {
double multiply(Factor factor);
}
namespace v3 {
double multiply(Factor factor);
}
namespace v4 {
double multiply(Factor factor);
}
namespace v4_bf16 {
double multiply(Factor factor);
}
namespace v4_amx {
double multiply(Factor factor);
}

}  // namespace ingot

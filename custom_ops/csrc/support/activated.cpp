#include "activated.h"

#include <cstring>

#include "support.h"

namespace ingot {

Activated activated_by(const char* activation, bool gated, int64_t columns) {
  if (gated && columns % 2 != 0) {
    fail("out_features is %lld; of a gate and what it gates there are as many each",
         static_cast<long long>(columns));
  }
  if (strcmp(activation, "silu") == 0) return {Activation::kSilu, gated};
  if (strcmp(activation, "gelu") == 0) return {Activation::kGelu, gated};
  if (strcmp(activation, "gelu_tanh") == 0) return {Activation::kGeluTanh, gated};
  fail("activation is \"%s\"; write silu, gelu or gelu_tanh", activation);
}

}  // namespace ingot

// What an MLP's first linear makes of its sums (custom_ops/activation.py).
#pragma once

#include <cstdint>

namespace ingot {

// function(sum), or where the first half of the columns are gates of the second,
// function(gate) * up.
enum class Activation { kNone, kSilu, kGelu, kGeluTanh };
struct Activated {
  Activation function = Activation::kNone;
  bool gated = false;

  int64_t outputs(int64_t columns) const { return gated ? columns / 2 : columns; }
};

// Of a linear with so many columns. Throws unless `activation` is the name of one, and gates have
// as many columns as what they gate.
Activated activated_by(const char* activation, bool gated, int64_t columns);

}  // namespace ingot

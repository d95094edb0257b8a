#include "quantised.h"

namespace ingot {
namespace {

// No two layouts of the same bits have blocks of the same size.
bool find_layout(int64_t bits, QuantisedWeight* weight) {
  for (int64_t group_size : {32, 64, 128}) {
    for (bool float_scales : {false, true}) {
      for (bool zero_points : {false, true}) {
        const int64_t codes = kPanel * ((float_scales ? 4 : 2) + zero_points);
        if (codes + kPanel * group_size * bits / 8 != weight->block_bytes) continue;
        weight->group_size = group_size;
        weight->codes_offset = codes;
        weight->float_scales = float_scales;
        weight->zero_points = zero_points;
        return true;
      }
    }
  }
  return false;
}

}  // namespace

QuantisedWeight quantised_weight(const DLTensor* weight, int64_t bits, int64_t depth) {
  constexpr const char* kName = "the quantised weight";
  if (depth < 0) fail("%s cannot have %lld columns", kName, static_cast<long long>(depth));
  if (bits != 4 && bits != 8)
    fail("codes have 4 or 8 bits, not %lld", static_cast<long long>(bits));
  expect(weight, kName, kUint8, {-1, -1, -1});
  expect_contiguous(weight, kName, 3);
  QuantisedWeight found{};
  found.blocks = data_of<const uint8_t>(weight);
  found.panels = weight->shape[0];
  found.groups = weight->shape[1];
  found.block_bytes = weight->shape[2];
  if (!find_layout(bits, &found)) {
    fail("%s has blocks of %lld bytes, which no layout of %lld-bit codes has", kName,
         static_cast<long long>(found.block_bytes), static_cast<long long>(bits));
  }
  if (found.groups != (depth + found.group_size - 1) / found.group_size) {
    fail("%s has %lld groups of %lld columns; %lld columns do not fit", kName,
         static_cast<long long>(found.groups), static_cast<long long>(found.group_size),
         static_cast<long long>(depth));
  }
  return found;
}

}  // namespace ingot

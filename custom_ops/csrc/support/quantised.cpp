#include "quantised.h"

namespace ingot {
namespace {

// No two layouts of the same bits have blocks of the same size.
bool find_layout(int64_t bits, QuantisedWeight* weight) {
  const auto fits = [&](int64_t group_size, bool float_scales, bool zero_points, bool multipliers) {
    weight->group_size = group_size;
    weight->float_scales = float_scales;
    weight->zero_points = zero_points;
    weight->multipliers = multipliers;
    const int64_t bytes = zero_points ? 1 : multipliers ? kMultipliers : 0;
    weight->codes_offset = weight->behind_scales() + kPanel * bytes;
    return weight->codes_offset + kPanel * group_size * bits / 8 == weight->block_bytes;
  };
  for (bool float_scales : {false, true}) {
    for (int64_t group_size : {kMostGroup / 4, kMostGroup / 2, kMostGroup}) {
      for (bool zero_points : {false, true}) {
        if (fits(group_size, float_scales, zero_points, false)) return true;
      }
    }
    if (bits == 4 && fits(kMostGroup, float_scales, false, true)) return true;
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

bool read_call(const DLTensor* x, const DLTensor* weight, const DLTensor* bias,
               const DLTensor* input_scale, const DLTensor* input_perm, int64_t out_features,
               int64_t activation_bits, int64_t bits, Activated activated, DLTensor* out,
               QuantisedLinear* call) {
  expect(x, "x", kFloat32, {-1, -1});
  expect_contiguous(x, "x", 1);
  const int64_t depth = x->shape[1];
  const QuantisedWeight packed = quantised_weight(weight, bits, depth);
  if (out_features < 0 || packed.panels != (out_features + kPanel - 1) / kPanel) {
    fail("out_features is %lld, but the quantised weight has %lld panels of 64",
         static_cast<long long>(out_features), static_cast<long long>(packed.panels));
  }
  if (activation_bits != 8 && activation_bits != 16 && activation_bits != 32) {
    fail("activation_bits is %lld; it is 8, 16 or 32", static_cast<long long>(activation_bits));
  }
  const auto optional = [](const DLTensor* tensor, const char* name, DLDataType dtype,
                           int64_t size) {
    if (tensor == nullptr) return;
    expect(tensor, name, dtype, {size});
    expect_contiguous(tensor, name, 1);
  };
  optional(bias, "bias", kFloat32, out_features);
  optional(input_scale, "input_scale", kFloat32, depth);
  optional(input_perm, "input_perm", kInt64, depth);
  if (wants_shape(out, kFloat32, {x->shape[0], activated.outputs(out_features)})) return false;
  const auto* perm = input_perm != nullptr ? data_of<const int64_t>(input_perm) : nullptr;
  for (int64_t k = 0; kSeesValues && perm != nullptr && k < depth; k++) {
    if (perm[k] < 0 || perm[k] >= depth) {
      fail("input_perm[%lld] is %lld, outside [0, %lld)", static_cast<long long>(k),
           static_cast<long long>(perm[k]), static_cast<long long>(depth));
    }
  }
  *call = {.x = data_of<const float>(x),
           .x_stride = x->strides[0],
           .depth = depth,
           .weight = packed,
           .middle = 1 << (bits - 1),
           .passes = activation_bits == 32 ? 2 : 1,
           .bias = bias != nullptr ? data_of<const float>(bias) : nullptr,
           .input_scale = input_scale != nullptr ? data_of<const float>(input_scale) : nullptr,
           .input_perm = perm,
           .out = data_of<float>(out),
           .rows = x->shape[0],
           .columns = out_features,
           .activated = activated};
  return true;
}

}  // namespace ingot

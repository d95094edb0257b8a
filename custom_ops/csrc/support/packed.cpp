#include "packed.h"

namespace ingot {

PackedWeight packed_weight(const DLTensor* weight, int64_t depth) {
  if (depth < 0) fail("the packed weight cannot have %lld columns", static_cast<long long>(depth));
  const bool pairs = same(weight->dtype, kBfloat16);
  if (pairs) {
    expect(weight, "the packed weight", kBfloat16, {-1, (depth + 1) / 2, kPanel, 2});
  } else {
    expect(weight, "the packed weight", kFloat32, {-1, depth, kPanel});
  }
  expect_contiguous(weight, "the packed weight", weight->ndim);
  return {data_of<const uint32_t>(weight), weight->shape[0], depth, pairs ? 2 : 1};
}

bool read_call(const DLTensor* x, const DLTensor* weight, const DLTensor* bias,
               int64_t out_features, Activated activated, DLTensor* out, PackedLinear* call) {
  expect(x, "x", kFloat32, {-1, -1});
  expect_contiguous(x, "x", 1);
  const PackedWeight packed = packed_weight(weight, x->shape[1]);
  if (out_features < 0 || packed.panels != (out_features + kPanel - 1) / kPanel) {
    fail("out_features is %lld, but the packed weight has %lld panels of 64",
         static_cast<long long>(out_features), static_cast<long long>(packed.panels));
  }
  if (bias != nullptr) {
    expect(bias, "bias", kFloat32, {out_features});
    expect_contiguous(bias, "bias", 1);
  }
  if (wants_shape(out, kFloat32, {x->shape[0], activated.outputs(out_features)})) return false;
  *call = {.x = data_of<const float>(x),
           .x_stride = x->strides[0],
           .weight = packed,
           .bias = bias != nullptr ? data_of<const float>(bias) : nullptr,
           .out = data_of<float>(out),
           .rows = x->shape[0],
           .columns = out_features,
           .activated = activated};
  return true;
}

void check_tokens(const int64_t* tokens, int64_t count, int64_t panels) {
  for (int64_t t = 0; t < count; t++) {
    if (tokens[t] >= 0 && tokens[t] < panels * kPanel) continue;
    fail("tokens[%lld] is %lld, outside [0, %lld)", static_cast<long long>(t),
         static_cast<long long>(tokens[t]), static_cast<long long>(panels * kPanel));
  }
}

}  // namespace ingot

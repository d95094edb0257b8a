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

void check_tokens(const int64_t* tokens, int64_t count, int64_t panels) {
  for (int64_t t = 0; t < count; t++) {
    if (tokens[t] >= 0 && tokens[t] < panels * kPanel) continue;
    fail("tokens[%lld] is %lld, outside [0, %lld)", static_cast<long long>(t),
         static_cast<long long>(tokens[t]), static_cast<long long>(panels * kPanel));
  }
}

}  // namespace ingot

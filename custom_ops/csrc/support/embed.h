// What the embeddings share: rows of a packed matrix by token, whatever its values are.
#pragma once

#include "packed.h"

namespace ingot::INGOT_LEVEL {
namespace {

// out [T, dim] float32: copy(row, to) of each token, which must be a row of `panels` panels.
template <typename Copy>
void embed(const DLTensor* tokens, int64_t panels, int64_t dim, DLTensor* out, Copy copy) {
  constexpr int64_t kParallelWork = 1 << 14;  // values worth waking the other threads for
  expect(tokens, "tokens", kInt64, {-1});
  expect_contiguous(tokens, "tokens", 1);
  const int64_t count = tokens->shape[0];
  if (wants_shape(out, kFloat32, {count, dim})) return;
  const int64_t* token = data_of<const int64_t>(tokens);
  check_tokens(token, count, panels);
  float* to = data_of<float>(out);
#pragma omp parallel for schedule(static) if (count * dim > kParallelWork)
  for (int64_t t = 0; t < count; t++) copy(token[t], to + t * dim);
}

}  // namespace
}  // namespace ingot::INGOT_LEVEL

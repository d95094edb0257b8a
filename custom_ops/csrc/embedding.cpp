// embedding: rows of a packed matrix; see custom_ops/embedding.py.
#include "ops.h"
#include "packed.h"
#include "vec.h"

namespace ingot::INGOT_LEVEL {
namespace {

constexpr int64_t kParallelWork = 1 << 14;  // values worth waking the other threads for

void copy_row(const PackedWeight& weight, int64_t row, float* out) {
  const uint32_t* words = weight.words + row / kPanel * weight.panel_words() + row % kPanel;
  if (weight.step == 1) {
    for (int64_t k = 0; k < weight.depth; k++) out[k] = bit_cast<float>(words[k * kPanel]);
    return;
  }
  for (int64_t k = 0; k < weight.depth; k++) {
    const uint32_t pair = words[k / 2 * kPanel];
    out[k] = bit_cast<float>(k % 2 == 0 ? pair << 16 : pair & 0xffff0000u);
  }
}

}  // namespace

void embedding(const DLTensor* tokens, const DLTensor* weight, int64_t embedding_dim,
               DLTensor* out0) {
  expect(tokens, "tokens", kInt64, {-1});
  expect_contiguous(tokens, "tokens", 1);
  const PackedWeight packed = packed_weight(weight, embedding_dim);
  const int64_t count = tokens->shape[0];
  if (wants_shape(out0, kFloat32, {count, embedding_dim})) return;

  const int64_t* token = data_of<const int64_t>(tokens);
  check_tokens(token, count, packed.panels);
  float* out = data_of<float>(out0);
#pragma omp parallel for schedule(static) if (count * embedding_dim > kParallelWork)
  for (int64_t t = 0; t < count; t++) copy_row(packed, token[t], out + t * embedding_dim);
}

}  // namespace ingot::INGOT_LEVEL

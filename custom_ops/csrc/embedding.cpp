// embedding: rows of a packed matrix; see custom_ops/embedding.py.
#include "embed.h"
#include "ops.h"
#include "vec.h"

namespace ingot::INGOT_LEVEL {
namespace {

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
  const PackedWeight packed = packed_weight(weight, embedding_dim);
  embed(tokens, packed.panels, embedding_dim, out0,
        [&](int64_t row, float* to) { copy_row(packed, row, to); });
}

}  // namespace ingot::INGOT_LEVEL

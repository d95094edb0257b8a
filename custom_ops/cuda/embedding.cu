// embedding: rows of a packed matrix; see custom_ops/embedding.py.
#include "cuda_ops.h"
#include "embed.h"

namespace ingot::cuda {
namespace {

struct Floats {
  const uint32_t* words;
  int64_t panel_words;

  __device__ float value(int64_t row, int64_t k) const {
    return as_float(words[row / kPanel * panel_words + k * kPanel + row % kPanel]);
  }
};

struct Bfloats {
  const uint32_t* words;
  int64_t panel_words;

  __device__ float value(int64_t row, int64_t k) const {
    const uint32_t pair = words[row / kPanel * panel_words + k / 2 * kPanel + row % kPanel];
    return as_float(k % 2 == 0 ? pair << 16 : pair & 0xffff0000u);
  }
};

}  // namespace

void embedding(const DLTensor* tokens, const DLTensor* weight, int64_t embedding_dim,
               DLTensor* out0, cudaStream_t stream) {
  const PackedWeight packed = packed_weight(weight, embedding_dim);
  expect_aligned(packed.words, sizeof(uint32_t));
  const auto rows_as = [&](auto rows) {
    embed(tokens, rows, packed.panels, embedding_dim, out0, stream);
  };
  if (packed.step == 1) return rows_as(Floats{packed.words, packed.panel_words()});
  rows_as(Bfloats{packed.words, packed.panel_words()});
}

}  // namespace ingot::cuda

// quantised_embedding: rows of a quantised matrix; see custom_ops/quantised_embedding.py.
#include "cuda_ops.h"
#include "embed.h"
#include "quantised.h"

namespace ingot::cuda {
namespace {

template <int kBits>
struct Codes {
  QuantisedWeight weight;

  __device__ float value(int64_t row, int64_t k) const {
    const int64_t in_group = k % weight.group_size, lane = row % kPanel;
    const uint8_t* block =
        weight.blocks + (row / kPanel * weight.groups + k / weight.group_size) * weight.block_bytes;
    const float scale = weight.float_scales ? reinterpret_cast<const float*>(block)[lane]
                                            : to_float(reinterpret_cast<const Half*>(block)[lane]);
    const uint8_t* head = block + kPanel * (weight.float_scales ? 4 : 2) + lane;
    const int zero = weight.zero_points ? *head : 1 << (kBits - 1);
    const int multiplier = weight.multipliers ? head[in_group / kMultiplied * kPanel] : 1;
    constexpr int kColumns = 32 / kBits;  // of a word
    const int j = static_cast<int>(in_group % kColumns);
    const int shift = kBits == 4 ? j / 2 * 4 + j % 2 * 16 : j * 8;
    const auto* words = reinterpret_cast<const uint32_t*>(block + weight.codes_offset);
    const uint32_t word = words[in_group / kColumns * kPanel + lane];
    const int code = static_cast<int>(word >> shift & ((1u << kBits) - 1)) - zero;
    return static_cast<float>(code * multiplier) * scale;
  }
};

}  // namespace

void quantised_embedding(const DLTensor* tokens, const DLTensor* weight, int64_t embedding_dim,
                         int64_t bits, DLTensor* out0, cudaStream_t stream) {
  const QuantisedWeight packed = quantised_weight(weight, bits, embedding_dim);
  expect_aligned(packed.blocks, sizeof(uint32_t));
  const auto rows_as = [&](auto rows) {
    embed(tokens, rows, packed.panels, embedding_dim, out0, stream);
  };
  if (bits == 4) return rows_as(Codes<4>{packed});
  rows_as(Codes<8>{packed});
}

}  // namespace ingot::cuda

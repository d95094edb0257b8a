// quantised_embedding: rows of a quantised matrix; see custom_ops/quantised_embedding.py.
#include "embed.h"
#include "half.h"
#include "ops.h"
#include "quantised.h"

namespace ingot::INGOT_LEVEL {
namespace {

// Group `group` of a row: `count` floats. A row has 4 of every 256 bytes, each in another cache
// line, and the next group's lines are fetched meanwhile.
template <int kBits>
void copy_group(const QuantisedWeight& weight, int64_t row, int64_t group, int64_t count,
                float* out) {
  const uint8_t* block = weight.block(row / kPanel, group);
  const int64_t lane = row % kPanel;
  float scale;
  if (weight.float_scales) {
    scale = reinterpret_cast<const float*>(block)[lane];
  } else {
    scale = to_float(reinterpret_cast<const Half*>(block)[lane]);
  }
  const uint8_t* head = block + weight.behind_scales() + lane;
  const int32_t zero = weight.zero_points ? *head : 1 << (kBits - 1);
  const auto* words = reinterpret_cast<const uint32_t*>(block + weight.codes_offset) + lane;
  constexpr int64_t kColumns = 32 / kBits;
  for (int64_t k = 0; k < count; k += kColumns, words += kPanel) {
    __builtin_prefetch(reinterpret_cast<const uint8_t*>(words) + weight.block_bytes);
    const int32_t multiplier = weight.multipliers ? head[k / kMultiplied * kPanel] : 1;
    float floats[kColumns];
#pragma GCC unroll 8
    for (int64_t j = 0; j < kColumns; j++) {
      const int64_t shift = kBits == 4 ? j / 2 * 4 + j % 2 * 16 : j * 8;
      const uint32_t code = (*words >> shift) & ((1u << kBits) - 1);
      floats[j] = static_cast<float>((static_cast<int32_t>(code) - zero) * multiplier) * scale;
    }
    if (count - k >= kColumns) {
      memcpy(out + k, floats, sizeof(floats));
    } else {
      memcpy(out + k, floats, static_cast<size_t>(count - k) * sizeof(float));
    }
  }
}

void copy_row(const QuantisedWeight& weight, int64_t bits, int64_t row, int64_t depth, float* out) {
  for (int64_t g = 0; g < weight.groups; g++) {
    const int64_t begin = g * weight.group_size;
    const int64_t left = depth - begin;
    const int64_t count = left < weight.group_size ? left : weight.group_size;
    if (bits == 4) {
      copy_group<4>(weight, row, g, count, out + begin);
    } else {
      copy_group<8>(weight, row, g, count, out + begin);
    }
  }
}

}  // namespace

void quantised_embedding(const DLTensor* tokens, const DLTensor* weight, int64_t embedding_dim,
                         int64_t bits, DLTensor* out0) {
  const QuantisedWeight packed = quantised_weight(weight, bits, embedding_dim);
  embed(tokens, packed.panels, embedding_dim, out0,
        [&](int64_t row, float* to) { copy_row(packed, bits, row, embedding_dim, to); });
}

}  // namespace ingot::INGOT_LEVEL

// What the products of linear_w4 and linear_w8 share, whatever their instructions.
#pragma once

#include "fetch_ahead.h"
#include "half.h"
#include "rounded_rows.h"
#include "shares.h"
#include "workspace.h"

namespace ingot::INGOT_LEVEL {
namespace {

// What says how a block's codes count.
enum class Scheme {
  kSymmetric,   // code - 2^(bits - 1)
  kZeroPoints,  // code - zero
  kMultipliers  // (code - 2^(bits - 1)) * multiplier
};

// The next kLanes bytes. GCC 12 would convert a vector of them one by one.
inline VecInt load_bytes(const uint8_t* from) {
#if defined(__AVX512F__)
  return bit_cast<VecInt>(_mm512_maskz_cvtepu8_epi32(0xffff, load<__m128i>(from)));
#elif defined(__AVX2__)
  return bit_cast<VecInt>(_mm256_cvtepu8_epi32(_mm_cvtsi64_si128(load<int64_t>(from))));
#else
  return bit_cast<VecInt>(_mm_cvtepu8_epi32(_mm_cvtsi32_si128(load<int32_t>(from))));
#endif
}

// A block's scales and, where it has them, zero points as the products want them.
struct BlockHeader {
  alignas(64) float scales[kPanel];
  alignas(64) int32_t zeros[kPanel];
  const uint8_t* multipliers;  // [kMultipliers][kPanel] in the block, if it has them

  void read(const QuantisedWeight& weight, const uint8_t* block) {
    fetch_ahead(block, weight.codes_offset);
    if (weight.float_scales) {
      memcpy(scales, block, sizeof(scales));
    } else {
      const auto* from = reinterpret_cast<const Half*>(block);
      for (int64_t i = 0; i < kPanel; i += kLanes) store(scales + i, load_floats(from + i));
    }
    multipliers = block + weight.behind_scales();
    if (!weight.zero_points) return;
    for (int64_t i = 0; i < kPanel; i++) zeros[i] = block[weight.behind_scales() + i];
  }
};

// The outputs of a unit, from its bias to the last block.
struct Unit {
  const QuantisedLinear& call;
  const Activations& x;
  int64_t panel;
  int64_t row;
  int64_t rows;

  void begin(float* sums, int64_t padded_rows) const {
    const int64_t column = panel * kPanel;
    for (int64_t c = 0; c < kPanel; c++) {
      sums[c] = call.bias != nullptr && column + c < call.columns ? call.bias[column + c] : 0.0f;
    }
    for (int64_t r = 1; r < padded_rows; r++) {
      memcpy(sums + r * kPanel, sums, kPanel * sizeof(float));
    }
  }

  // Writes the rows from `first` on.
  void end(const float* sums, int64_t first = 0) const {
    const int64_t column = panel * kPanel, left = call.columns - column;
    const auto bytes = static_cast<size_t>(left < kPanel ? left : kPanel) * sizeof(float);
    for (int64_t r = first; r < rows; r++) {
      memcpy(call.out + (row + r) * call.columns + column, sums + r * kPanel, bytes);
    }
  }
};

// Room for x of `rows` rows and `groups` groups of each, on cache lines.
template <typename Format>
class Room {
 public:
  Room(const QuantisedLinear& call, int64_t rows, int64_t groups)
      : words_per_group_(call.weight.group_size / kPerWord<Format>),
        parts_(parts_of(call.weight)),
        cells_(rows * groups),
        groups_(groups),
        space_(cells_ * (words_per_group_ + 1 + parts_) * int64_t{sizeof(uint32_t)}) {}

  Activations x() const {
    auto* words = space_.as<uint32_t>();
    auto* scales = reinterpret_cast<float*>(words + cells_ * words_per_group_);
    auto* offsets = reinterpret_cast<int32_t*>(scales + cells_);
    return {words, scales, offsets, words_per_group_, groups_, parts_};
  }

 private:
  int64_t words_per_group_, parts_, cells_, groups_;
  Workspace space_;
};

}  // namespace
}  // namespace ingot::INGOT_LEVEL

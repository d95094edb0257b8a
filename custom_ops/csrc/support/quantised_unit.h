// What the products of linear_w4 and linear_w8 share, whatever their instructions.
#pragma once

#include "activated_sums.h"
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
  int64_t panel;  // of the weight
  int64_t row;
  int64_t rows;

  // Of what this one's columns are the gates of.
  Unit gated() const { return {call, x, panel + unit_panels(call), row, rows}; }

  // What is multiplied next.
  int64_t panel_behind() const {
    const int64_t gates = unit_panels(call);
    if (!call.activated.gated) return panel + 1;
    return panel < gates ? panel + gates : panel - gates + 1;
  }

  void begin(float* sums, int64_t padded_rows) const {
    const int64_t column = panel * kPanel;
    for (int64_t c = 0; c < kPanel; c++) {
      sums[c] = call.bias != nullptr && column + c < call.columns ? call.bias[column + c] : 0.0f;
    }
    for (int64_t r = 1; r < padded_rows; r++) {
      memcpy(sums + r * kPanel, sums, kPanel * sizeof(float));
    }
  }

  // Writes the rows from `first` on, as they are.
  void end(const float* sums, int64_t first = 0) const {
    const int64_t column = panel * kPanel;
    const auto bytes = static_cast<size_t>(least(call.columns - column, kPanel)) * sizeof(float);
    for (int64_t r = first; r < rows; r++) {
      memcpy(call.out + (row + r) * call.columns + column, sums + r * kPanel, bytes);
    }
  }
};

// Writes what the activation makes of a unit's sums; sum_up(unit, to) adds up a unit's.
template <int64_t kMostRows, typename SumUp>
void write_activated(const Unit& unit, const float* sums, bool far, SumUp sum_up) {
  write_activated<kMostRows>(unit.call, unit.panel, unit.row, unit.rows, sums, far,
                             [&](float* to) { sum_up(unit.gated(), to); });
}

// Room for a call's sums, where it is deferred, and for x of `rows` rows and `groups` groups of
// each, on cache lines.
template <typename Format>
class Room {
 public:
  Room(const QuantisedLinear& call, bool few_rows, int64_t rows, int64_t groups)
      : words_per_group_(call.weight.group_size / kPerWord<Format>),
        parts_(parts_of(call.weight)),
        cells_(rows * groups),
        groups_(groups),
        sums_(deferred_bytes(call, few_rows)),
        space_(sums_ + cells_ * (words_per_group_ + 1 + parts_) * int64_t{sizeof(uint32_t)}) {}

  float* sums() const { return space_.as<float>(); }

  Activations x() const {
    auto* words = reinterpret_cast<uint32_t*>(space_.as<char>() + sums_);
    auto* scales = reinterpret_cast<float*>(words + cells_ * words_per_group_);
    auto* offsets = reinterpret_cast<int32_t*>(scales + cells_);
    return {words, scales, offsets, words_per_group_, groups_, parts_};
  }

 private:
  int64_t words_per_group_, parts_, cells_, groups_, sums_;
  Workspace space_;
};

}  // namespace
}  // namespace ingot::INGOT_LEVEL

// Packed weights as tensor cores take them. A warp multiplies 32 consecutive rows of W, half a
// panel of 64, by steps of 32 columns k: the lane (g, t) (intrinsics.h) holds the rows 4g .. 4g + 3
// and the columns 8t .. 8t + 7 of a step, which are `kLoads` words of 16 bytes in every format, as
// memory has them: eight lanes read 128 consecutive bytes. Pairs of columns in bfloat16 are what
// mma multiplies; the order of k inside of a step does not matter as long as x has the same.
//
// A code minus its zero point lies in [-255, 255]: bfloat16 holds it exactly.
#pragma once

#include "device.h"
#include "packed.h"
#include "quantised.h"

namespace ingot::cuda {

constexpr int kStepColumns = 32;
constexpr int kHalfPanel = 32;

__device__ __forceinline__ uint32_t word_of(const uint4& words, int i) { return (&words.x)[i]; }

// bfloat16 [panels][ceil(K/2)][64][2].
struct Bfloats {
  static constexpr int kLoads = 4;
  static constexpr int kChunk = 2;  // steps that a lane loads at once
  static constexpr bool kScaled = false;
  struct Header {};
  struct Group {};

  const uint32_t* words;
  int64_t panel_words;
  int steps;
  int pairs;  // of columns: rows of words

  static Bfloats of(const PackedWeight& weight) {
    expect_aligned(weight.words, sizeof(uint4));
    return {weight.words, weight.panel_words(),
            static_cast<int>(divide_up(weight.depth, kStepColumns)),
            static_cast<int>(divide_up(weight.depth, 2))};
  }

  __device__ bool begins_group(int) const { return false; }
  __device__ bool ends_group(int) const { return false; }
  __device__ Header header(int, int, int) const { return {}; }
  __device__ Group group(const Header&, int, int, int) const { return {}; }

  __device__ void load(uint4 (&to)[kLoads], int half, int step, int g, int t) const {
    const int first = step * (kStepColumns / 2) + 4 * t;
    const uint32_t* from = words + half / 2 * panel_words + half % 2 * kHalfPanel + 4 * g;
#pragma unroll
    for (int i = 0; i < kLoads; i++) {
      to[i] = first + i < pairs ? load_once(reinterpret_cast<const uint4*>(
                                      from + static_cast<int64_t>(first + i) * kPanel))
                                : uint4{0, 0, 0, 0};
    }
  }

  // The four pairs of columns of row 4g + i.
  static __device__ void unpack(uint32_t (&pairs)[4], const uint4 (&words)[kLoads], int i,
                                const Group&) {
#pragma unroll
    for (int j = 0; j < 4; j++) pairs[j] = word_of(words[j], i);
  }
};

// The B64 layout of 4 or 8-bit codes (custom_ops/quantised_layout.py).
template <int kBits>
struct Codes {
  static constexpr int kLoads = kBits / 4;
  static constexpr int kChunk = 16 / kBits;
  static constexpr bool kScaled = true;
  static constexpr int kWordColumns = 32 / kBits;
  // Of a group what the lane's four rows have, as memory has it; float32 scales are not in it.
  struct Header {
    uint2 halves;
    uint32_t bytes;  // zeros or multipliers
  };
  // Scales, and what turns codes into code - zero (see unpack).
  struct Group {
    float scale[4];
    uint32_t offset[4];
  };

  const uint8_t* blocks;
  int64_t panel_bytes;
  int block_bytes, codes_offset;
  int steps;
  int block_shift;  // a block has 1 << block_shift steps: 1, 2 or 4
  int group_shift;  // what shares a scale likewise: as a block, or with multipliers one step
  bool float_scales, zero_points, multipliers;

  static Codes of(const QuantisedWeight& weight) {
    expect_aligned(weight.blocks, sizeof(uint4));
    const int shift = weight.group_size == 32 ? 0 : weight.group_size == 64 ? 1 : 2;
    return {weight.blocks,
            weight.groups * weight.block_bytes,
            static_cast<int>(weight.block_bytes),
            static_cast<int>(weight.codes_offset),
            static_cast<int>(weight.groups) << shift,
            shift,
            weight.multipliers ? 0 : shift,
            weight.float_scales,
            weight.zero_points,
            weight.multipliers};
  }

  __device__ const uint8_t* block(int half, int step) const {
    return blocks + half / 2 * panel_bytes +
           static_cast<int64_t>(step >> block_shift) * block_bytes;
  }
  __device__ int in_block(int step) const { return step % (1 << block_shift); }

  __device__ bool begins_group(int step) const { return step % (1 << group_shift) == 0; }
  __device__ bool ends_group(int step) const { return begins_group(step + 1); }

  // Of the group that the step lies in.
  __device__ Header header(int half, int step, int g) const {
    const uint8_t* from = block(half, step);
    const int row = half % 2 * kHalfPanel + 4 * g;
    Header header{};
    if (!float_scales) header.halves = *reinterpret_cast<const uint2*>(from + row * 2);
    const int part = multipliers ? in_block(step) : 0;
    const int bytes = static_cast<int>(kPanel) * ((float_scales ? 4 : 2) + part) + row;
    if (zero_points || multipliers) {
      header.bytes = *reinterpret_cast<const uint32_t*>(from + bytes);
    }
    return header;
  }
  __device__ Group group(const Header& header, int half, int step, int g) const {
    const int row = half % 2 * kHalfPanel + 4 * g;
    Group group;
#pragma unroll
    for (int i = 0; i < 4; i++) {
      const uint32_t pair = i < 2 ? header.halves.x : header.halves.y;
      group.scale[i] = to_float(Half{static_cast<uint16_t>(pair >> 16 * (i % 2))});
      const uint32_t byte = (header.bytes >> 8 * i) & 0xffu;
      const uint32_t zero = zero_points ? byte : 1u << (kBits - 1);
      group.offset[i] = kBits == 4 ? (0xc300u + zero) * 0x10001u  // a pair of -(128 + zero)
                                   : as_bits(8388608.0f + static_cast<float>(zero));
    }
    if (float_scales) {
      const auto* from = reinterpret_cast<const float*>(block(half, step)) + row;
#pragma unroll
      for (int i = 0; i < 4; i++) group.scale[i] = from[i];
    }
    if (multipliers) {
#pragma unroll
      for (int i = 0; i < 4; i++) {
        group.scale[i] *= static_cast<float>((header.bytes >> 8 * i) & 0xffu);
      }
    }
    return group;
  }

  __device__ void load(uint4 (&to)[kLoads], int half, int step, int g, int t) const {
    const uint8_t* codes = block(half, step) + codes_offset;
    const int first = in_block(step) * (kStepColumns / kWordColumns) + kLoads * t;
    const auto* from = reinterpret_cast<const uint32_t*>(codes) + half % 2 * kHalfPanel + 4 * g;
#pragma unroll
    for (int i = 0; i < kLoads; i++) {
      to[i] = load_once(reinterpret_cast<const uint4*>(from + (first + i) * kPanel));
    }
  }

  static __device__ void unpack(uint32_t (&pairs)[4], const uint4 (&words)[kLoads], int i,
                                const Group& group) {
    if constexpr (kBits == 4) {
      // 0x4300 + code is 128 + code as bfloat16: a nibble fits its seven bits of mantissa.
#pragma unroll
      for (int j = 0; j < 4; j++) {
        const uint32_t codes = ((word_of(words[0], i) >> 4 * j) & 0x000f000fu) | 0x43004300u;
        pairs[j] = add_bfloats(codes, group.offset[i]);
      }
    } else {
      // 0x4b000000 + code is 2^23 + code as float32; the difference's upper half is all of it.
      const float offset = as_float(group.offset[i]);
#pragma unroll
      for (int j = 0; j < 4; j++) {
        const uint32_t word = word_of(words[j / 2], i);
        const float low = as_float(select_bytes(word, 0x4b000000u, 0x7540u + j % 2 * 2)) - offset;
        const float high = as_float(select_bytes(word, 0x4b000000u, 0x7541u + j % 2 * 2)) - offset;
        pairs[j] = select_bytes(as_bits(low), as_bits(high), 0x7632u);
      }
    }
  }
};

}  // namespace ingot::cuda

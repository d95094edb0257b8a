// How the codes of a quantised weight meet x, for each number of their bits.
#pragma once

#include "dot_int.h"

namespace ingot::INGOT_LEVEL {
namespace {

// A packed word unpacks to kWords words, each of which meets one word of x; kOrder says which of
// the packed word's columns those hold, in turn. kRuns: sums of bytes stay in 16 bits for kRun
// words of x, where no instruction adds them to 32 bits at once.

constexpr int64_t kRun = 8;  // 16 bits hold 8 sums of two products of a nibble and an int8

// A shift of 16-bit halves leaves their uppermost code with nothing above it: no mask is needed.
using VecHalves = uint16_t __attribute__((vector_size(sizeof(VecWord))));

// 4-bit codes and 8-bit activations.
struct Nibbles8 {
  using Value = int8_t;
  static constexpr float kMost = 127.0f;  // of x
  static constexpr int kWords = 2;
  static constexpr int kOrder[] = {0, 4, 1, 5, 2, 6, 3, 7};
  static constexpr bool kRuns = !kHasVnni;
  static VecInt unpack(VecWord word, int i) {
    return bit_cast<VecInt>((word >> 4 * i) & 0x0f0f0f0fu);
  }
  static VecInt add(VecInt sum, VecInt codes, VecInt x) {
    return kRuns ? add_byte_pairs(sum, codes, x) : dot_bytes(sum, codes, x);
  }
};

// 4-bit codes and 16-bit activations.
struct Nibbles16 {
  using Value = int16_t;
  static constexpr float kMost = 32767.0f;
  static constexpr int kWords = 4;
  static constexpr int kOrder[] = {0, 1, 2, 3, 4, 5, 6, 7};
  static constexpr bool kRuns = false;
  static VecInt unpack(VecWord word, int i) {
    if (i == 3) return bit_cast<VecInt>(bit_cast<VecHalves>(word) >> 12);
    return bit_cast<VecInt>((word >> 4 * i) & 0x000f000fu);
  }
  static VecInt add(VecInt sum, VecInt codes, VecInt x) { return dot_pairs_of_16(sum, codes, x); }
};

// 8-bit codes and 16-bit activations.
struct Bytes16 {
  using Value = int16_t;
  static constexpr float kMost = 32767.0f;
  static constexpr int kWords = 2;
  static constexpr int kOrder[] = {0, 2, 1, 3};
  static constexpr bool kRuns = false;
  static VecInt unpack(VecWord word, int i) {
    if (i == 1) return bit_cast<VecInt>(bit_cast<VecHalves>(word) >> 8);
    return bit_cast<VecInt>((word >> 8 * i) & 0x00ff00ffu);
  }
  static VecInt add(VecInt sum, VecInt codes, VecInt x) { return dot_pairs_of_16(sum, codes, x); }
};

// 8-bit codes and 8-bit activations, held in 16 where no instruction multiplies full bytes without
// saturating.
struct Bytes8In16 : Bytes16 {
  static constexpr float kMost = 127.0f;
};

struct Bytes8 {
  using Value = int8_t;
  static constexpr float kMost = 127.0f;
  static constexpr int kWords = 1;
  static constexpr int kOrder[] = {0, 1, 2, 3};
  static constexpr bool kRuns = false;
  static VecInt unpack(VecWord word, int) { return bit_cast<VecInt>(word); }
  static VecInt add(VecInt sum, VecInt codes, VecInt x) { return dot_bytes(sum, codes, x); }
};

// A format whose codes are unpacked already.
template <typename Format>
struct Unpacked : Format {
  static constexpr int kWords = 1;
  static VecInt unpack(VecWord word, int) { return bit_cast<VecInt>(word); }
};

template <typename Format>
constexpr int64_t kColumnsPerWord = sizeof(Format::kOrder) / sizeof(int);  // of a packed word
template <typename Format>
constexpr int64_t kPerWord = 4 / sizeof(typename Format::Value);  // values in a word of x

}  // namespace
}  // namespace ingot::INGOT_LEVEL

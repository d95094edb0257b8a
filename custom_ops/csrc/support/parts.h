// A float32 as the sum of three bfloat16, 8 bits of its significand each (Henry, Tang and Heinecke,
// arXiv:1904.06376): of the nine products of two such sums, six are what float32 can tell.
//
// The first part is rounded to nearest, so that what is left has either sign: the products of the
// smaller parts that are left out, at most 2^-23 of the whole, do not add up. The others are cut
// off; the third holds all that is left.
//
// Tiles take and make subnormals as zero: up to 2^-126 of a part, a product or a sum is lost.
// Beside the products of a row and a column whose largest values are X and W that is 2^-126 / X, /
// W and / (X W). So what goes by tiles is rows with X >= 2^-37 and columns with W >= 2^-63: at most
// 2^-26 is lost, which float32 cannot tell. All zero goes, too. And a sum of products that is
// infinite or NaN is summed again in float32 arithmetic: infinity has no parts, and the first part
// of a value near the largest float is rounded to infinity.
#pragma once

#include "vec.h"

namespace ingot::INGOT_LEVEL {
namespace {

inline constexpr int kExactParts = 3;

// The high halves of low's and of high's floats, as the low and high halves of words.
inline VecWord high_halves(VecWord low, VecWord high) { return low >> 16 | (high & 0xffff0000u); }

// x's bits from which `high_halves` takes the first part.
inline VecWord rounded_bits(Vec x) { return bit_cast<VecWord>(x) + 0x8000u; }

// x without the part that `high_halves` takes of `bits`: exact.
inline Vec without_part(Vec x, VecWord bits) { return x - bit_cast<Vec>(bits & 0xffff0000u); }

// Calls keep(part, words) for each part, the largest first: low's in the low halves of words,
// high's in the high ones.
template <typename Keep>
[[gnu::always_inline]] inline void split(Vec low, Vec high, Keep keep) {
  VecWord low_bits = rounded_bits(low), high_bits = rounded_bits(high);
  keep(0, high_halves(low_bits, high_bits));
#pragma GCC unroll 2
  for (int part = 1; part < kExactParts; part++) {
    low = without_part(low, low_bits);
    high = without_part(high, high_bits);
    low_bits = bit_cast<VecWord>(low);
    high_bits = bit_cast<VecWord>(high);
    keep(part, high_halves(low_bits, high_bits));
  }
}

// The largest |x| of some vectors, lane by lane: without their signs, floats are ordered as their
// bits are, and infinity and NaN are the largest.
class LargestSize {
 public:
  void add(Vec x) { bits_ = larger(bit_cast<VecInt>(x) & 0x7fffffff, bits_); }

  bool all_finite() const { return largest_lane(bits_) < 0x7f800000; }

  // Of a row of x.
  bool fits_tiles() const {
    constexpr int32_t kLeast = (127 - 37) << 23;
    const int32_t bits = largest_lane(bits_);
    return bits == 0 || bits >= kLeast;
  }

 private:
  VecInt bits_ = {};
};

// Which bits are set in some vectors, lane by lane, each a column of a weight. The upper two bits
// of the exponent are set in no value below 2^-63, and one of them is in all others.
class SetBits {
 public:
  void add(Vec x, Vec y) { bits_ |= bit_cast<VecInt>(x) | bit_cast<VecInt>(y); }

  bool fit_tiles() const {
    const VecInt fit = ((bits_ & 0x7fffffff) == 0) | ((bits_ & 0x60000000) != 0);
    return sum_of_lanes(fit) == -kLanes;
  }

 private:
  VecInt bits_ = {};
};

}  // namespace
}  // namespace ingot::INGOT_LEVEL

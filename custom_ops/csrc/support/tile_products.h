// Products of float32 numbers by AMX's tiles (amx.h), of which each side is in parts
// (bfloat_words.h).
#pragma once

#include <type_traits>
#include <utility>

#include "amx.h"
#include "parts.h"

namespace ingot::INGOT_LEVEL {
namespace {

inline constexpr int kDepth = 2 * kAmxWords;  // terms of one product

// What fills a tile register.
struct Words {
  alignas(64) uint32_t rows[kAmxRows][kAmxWords];
};

inline int64_t depths(int64_t terms) { return (terms + kDepth - 1) / kDepth; }
inline int64_t columns_of(int64_t dim) { return (dim + kAmxWords - 1) / kAmxWords; }

inline constexpr int kSumTiles = 4, kFirstA = kSumTiles, kB = kFirstA + kExactParts;

// The CPU switches off what multiplies tiles when it has had nothing to do for some 2000 cycles,
// and takes some 800 to switch it on. So it gets a product that nobody reads, into a register that
// holds nothing at this time.
inline void stay_awake() { tile_dot_bf16<0, kFirstA, kB>(); }

// Calls body(std::integral_constant<int, 0>()), then with 1, and so on.
template <typename Body, int... kNumbers>
[[gnu::always_inline]] inline void each(std::integer_sequence<int, kNumbers...>, Body body) {
  (body(std::integral_constant<int, kNumbers>()), ...);
}
template <int kCount, typename Body>
[[gnu::always_inline]] inline void each(Body body) {
  each(std::make_integer_sequence<int, kCount>(), body);
}

// Of how many parts a product's first side is, and where it lies: here tiles, part by part.
template <int kParts>
inline std::integral_constant<int, kParts> parts_of(const Words (*)[kParts]) {
  return {};
}

template <int kTile, int kParts>
[[gnu::always_inline]] inline void load_part(const Words (*a)[kParts], int64_t c, int part) {
  tile_load<kTile>(&a[c][part], sizeof(Words) / kAmxRows);
}

// to [rows of the tiles][16 kColumns] (+)= a [][32 count] times b [32 count][16 kColumns], the
// smallest parts first; of three parts, products that are too small to count are left out. b's
// tiles of the next 32 terms lie `b_stride` further. Calls beside() once for each tile of b.
template <int kColumns, bool kAdd, int kOtherParts, typename A, typename Beside>
void multiply(A a, const Words (*b)[kOtherParts], int64_t b_stride, int64_t count, float* to,
              int64_t to_stride, Beside& beside) {
  constexpr int kParts = decltype(parts_of(a))::value;
  each<kColumns>([&](auto column) {
    if constexpr (kAdd) {
      tile_load<column>(to + column * kAmxWords, to_stride * sizeof(float));
    } else {
      tile_zero<column>();
    }
  });
  for (int64_t c = 0; c < count; c++) {
    each<kParts>([&](auto part) { load_part<kFirstA + part>(a, c, part); });
    each<kColumns>([&](auto column) {
      beside();
      each<kOtherParts>([&](auto larger) {
        constexpr int kOther = kOtherParts - 1 - larger;
        constexpr int kMeets = kParts < kExactParts ? kParts : kParts - kOther;
        tile_load<kB>(&b[c * b_stride + column][kOther], sizeof(Words) / kAmxRows);
        each<kMeets>([&](auto next) { tile_dot_bf16<column, kFirstA + kMeets - 1 - next, kB>(); });
      });
    });
  }
  each<kColumns>(
      [&](auto column) { tile_store<column>(to + column * kAmxWords, to_stride * sizeof(float)); });
}

}  // namespace
}  // namespace ingot::INGOT_LEVEL

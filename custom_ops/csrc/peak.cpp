// The work of support/peak.h: sums in registers, more of them than an instruction's latency times
// the units that execute it. No op; it is here to be compiled for each level, as ops are.
#include "peak.h"

#include "amx.h"
#include "dot_bf16.h"
#include "dot_int.h"

namespace ingot::INGOT_LEVEL {
namespace {

constexpr int64_t kRounds = 50'000;

// Steps of kOperations each; returns the operations.
template <int kOperations, typename V, typename Step>
double run_vectors(Step step) {
  constexpr int kSums = 12;
  V sums[kSums];
  for (int i = 0; i < kSums; i++) sums[i] = bit_cast<V>(lane_numbers() + i);  // or they are one
  for (int64_t r = 0; r < kRounds; r++) {
#pragma GCC unroll 12
    for (int i = 0; i < kSums; i++) sums[i] = step(sums[i]);
  }
  for (V& sum : sums) __asm__ volatile("" ::"m"(sum));  // none is left out
  return static_cast<double>(kOperations) * kSums * kRounds;
}

#if defined(INGOT_AMX)
// The same of tiles, four a step: 16 by 16 sums of 16 words of kValues. They hold numbers of all
// kinds, as those of a model do: products of zeros are a quarter faster.
template <int kValues, typename Steps>
double run_tiles(Steps steps) {
  constexpr int64_t kTileRounds = kRounds / 10;
  alignas(64) uint32_t numbers[4][kAmxRows][kAmxWords];
  uint32_t state = 1;
  for (auto& tile : numbers) {
    for (auto& row : tile) {
      for (uint32_t& word : row) {
        state = state * 1664525 + 1013904223;        // Numerical Recipes, section 7.1
        word = (state & 0xbfffbfffu) | 0x20002000u;  // bfloat16 between 2^-63 and 2
      }
    }
  }
  const Tiles tiles;
  tile_load<4>(numbers[0], sizeof(numbers[0][0]));
  tile_load<5>(numbers[1], sizeof(numbers[0][0]));
  tile_load<6>(numbers[2], sizeof(numbers[0][0]));
  tile_load<7>(numbers[3], sizeof(numbers[0][0]));
  for (int64_t r = 0; r < kTileRounds; r++) steps();
  return 2.0 * 4 * kAmxRows * kAmxWords * kAmxWords * kValues * kTileRounds;
}
#endif

double multiply_floats() {
  const Vec factor = broadcast(0.9999f);
  return run_vectors<2 * kLanes, Vec>([=](Vec sum) { return sum * factor + factor; });
}

double multiply_bfloats() {
#if defined(INGOT_AMX)
  return run_tiles<2>([] {
    tile_dot_bf16<0, 4, 5>();
    tile_dot_bf16<1, 4, 6>();
    tile_dot_bf16<2, 7, 5>();
    tile_dot_bf16<3, 7, 6>();
  });
#endif
  if (!kHasDotBf16) return multiply_floats();
  const VecWord ones = 0x3f803f80u - VecWord{};
  return run_vectors<4 * kLanes, Vec>([=](Vec sum) { return dot_pairs(sum, ones, ones); });
}

double multiply_bytes() {
#if defined(INGOT_AMX)
  return run_tiles<4>([] {
    tile_dot_s8s8<0, 4, 5>();
    tile_dot_s8s8<1, 4, 6>();
    tile_dot_s8s8<2, 7, 5>();
    tile_dot_s8s8<3, 7, 6>();
  });
#endif
  const VecInt ones = 0x01010101 - VecInt{};
  return run_vectors<8 * kLanes, VecInt>([=](VecInt sum) {
    return kHasVnni ? dot_bytes(sum, ones, ones) : add_byte_pairs(sum, ones, ones);
  });
}

}  // namespace

double multiply(Factor factor) {
  switch (factor) {
    case Factor::float32:
      return multiply_floats();
    case Factor::bfloat16:
      return multiply_bfloats();
    case Factor::int8:
      return multiply_bytes();
  }
  return 0.0;
}

}  // namespace ingot::INGOT_LEVEL

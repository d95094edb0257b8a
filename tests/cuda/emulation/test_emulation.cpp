// The emulation of CUDA's threads itself: what it gives, and that it finds what it is there to
// find.
#include <gtest/gtest.h>

#include <algorithm>
#include <numeric>
#include <vector>

#include "emulated_intrinsics.h"

namespace ingot::cuda {
namespace {

using emulation::run;

TEST(Emulation, EveryThreadOfEveryBlockRunsOnce) {
  std::vector<int> seen(6 * 40);
  run(dim3(2, 3), dim3(20, 2), 0, [&] {
    const unsigned block = blockIdx.y * gridDim.x + blockIdx.x;
    atomicAdd(&seen[block * 40 + threadIdx.y * blockDim.x + threadIdx.x], 1);
  });
  EXPECT_EQ(std::count(seen.begin(), seen.end(), 1), 6 * 40);
}

TEST(Emulation, ThreadsMeetAtBarriers) {
  int sum = 0;
  run(1, 64, 64 * sizeof(int), [&] {
    auto* shared = static_cast<int*>(dynamic_shared());
    shared[threadIdx.x] = static_cast<int>(threadIdx.x);
    __syncthreads();
    if (threadIdx.x == 0) sum = std::accumulate(shared, shared + 64, 0);
  });
  EXPECT_EQ(sum, 63 * 64 / 2);
}

TEST(Emulation, SharedMemoryBeginsAsNan) {
  run(1, 1, 4, [] { EXPECT_TRUE(std::isnan(*static_cast<float*>(dynamic_shared()))); });
}

// The warp that comes first goes on to its next barrier before another does anything.
TEST(Emulation, WarpsComeAsFarApartAsBarriersLetThem) {
  std::vector<int> left;
  run(1, 64, sizeof(int), [&] {
    auto* shared = static_cast<int*>(dynamic_shared());
    const int warp = static_cast<int>(threadIdx.x) / 32;
    if (threadIdx.x == 0) *shared = 0;
    __syncthreads();
    __syncwarp();
    if (threadIdx.x % 32 == 0) left.push_back(*shared);  // a race: warps write without a barrier
    __syncwarp();
    *shared = warp + 1;
    __syncthreads();
  });
  EXPECT_EQ(left.size(), 2U);
  EXPECT_EQ(std::count(left.begin(), left.end(), 0), 1);
}

TEST(Emulation, ThreadsThatWaitForeverAreReported) {
  GTEST_FLAG_SET(death_test_style, "threadsafe");  // forked, the child has no OpenMP team
  EXPECT_DEATH(run(1, 64, 0,
                   [] {
                     if (threadIdx.x % 2 == 0) __syncwarp();
                     if (threadIdx.x % 2 == 1) __syncthreads();
                     if (threadIdx.x % 2 == 0) __shfl_sync(~0u, 1, 0);
                   }),
               "threads of a block wait for others that never come");
}

TEST(Emulation, WarpsWhoseLanesAreNotTogetherAreReported) {
  GTEST_FLAG_SET(death_test_style, "threadsafe");
  EXPECT_DEATH(run(1, 32, 0,
                   [] {
                     if (threadIdx.x < 31) __shfl_sync(~0u, 1, 0);
                   }),
               "a lane has ended that its warp waits for");
  EXPECT_DEATH(run(1, 32, 0,
                   [] {
                     if (threadIdx.x > 0) __shfl_sync(~0u, 1, 0);
                   }),
               "a warp waits for a lane that is not there");
  EXPECT_DEATH(run(1, 32, 0,
                   [] {
                     if (threadIdx.x == 0) __shfl_sync(~0u, 1, 0);
                     if (threadIdx.x > 0) __any_sync(~0u, 1);
                   }),
               "lanes of a warp do different things together");
}

TEST(Emulation, AddressesThatAGpuRefusesAreReported) {
  GTEST_FLAG_SET(death_test_style, "threadsafe");
  alignas(16) static char from[32];
  const auto copy = [&](int to, int at) {
    run(1, 1, 32, [&] { copy_async(static_cast<char*>(dynamic_shared()) + to, from + at); });
  };
  copy(16, 16);
  EXPECT_DEATH(copy(8, 0), "not a multiple of 16");
  EXPECT_DEATH(copy(0, 8), "not from a multiple of 16");
  EXPECT_DEATH(copy(32, 0), "not in shared memory");
  EXPECT_DEATH(run(1, 32, 64,
                   [] {
                     uint32_t to[4];
                     load_matrices(to, static_cast<char*>(dynamic_shared()) + 2);
                   }),
               "not a multiple of 16");
  EXPECT_DEATH(run(1, 1, 32, [] { static_cast<char*>(dynamic_shared())[32] = 1; }),
               "a block wrote beyond its shared memory");
}

TEST(Emulation, ShufflesReadTheOtherLane) {
  run(1, 64, 0, [] {
    const int lane = static_cast<int>(threadIdx.x);
    EXPECT_EQ(__shfl_xor_sync(~0u, lane, 5), lane ^ 5);
    EXPECT_EQ(__shfl_sync(~0u, lane, 3), lane / 32 * 32 + 3);
  });
}

TEST(Emulation, CopiesArriveWhenTheyAreWaitedFor) {
  alignas(16) float from[4] = {1, 2, 3, 4};
  run(1, 1, 32, [&] {
    auto* to = static_cast<float*>(dynamic_shared());
    copy_async(to, from);
    commit_copies();
    copy_async(to + 4, from, 8);
    commit_copies();
    EXPECT_TRUE(std::isnan(to[0]));
    wait_copies<1>();
    EXPECT_EQ(to[3], 4);
    EXPECT_TRUE(std::isnan(to[4]));
    wait_copies<0>();
    EXPECT_EQ(to[5], 2);
    EXPECT_EQ(to[7], 0);
  });
}

TEST(Emulation, CopiesArriveAtOnceWhereThreadsRunBackward) {
  setenv("INGOT_EMULATION_ORDER", "backward", 1);
  alignas(16) float from[4] = {1, 2, 3, 4};
  std::vector<unsigned> order;
  run(1, 2, 32, [&] {
    order.push_back(threadIdx.x);
    auto* to = static_cast<float*>(dynamic_shared()) + 4 * threadIdx.x;
    copy_async(to, from, 8);
    EXPECT_EQ(to[1], 2);
    EXPECT_EQ(to[2], 0);
  });
  unsetenv("INGOT_EMULATION_ORDER");
  EXPECT_EQ(order, (std::vector<unsigned>{1, 0}));
}

// Fragments as PTX lays them out (intrinsics.h), written out apart from the emulation.
template <typename Pairs>
void check_mma() {
  float a[16][16], b[16][8], c[16][8] = {};
  for (int i = 0; i < 16; i++) {
    for (int j = 0; j < 16; j++) a[i][j] = static_cast<float>((i * 7 + j * 3) % 11 - 5);
    for (int j = 0; j < 8; j++) b[i][j] = static_cast<float>((i * 5 + j * 2) % 13 - 6);
  }
  run(1, 32, 0, [&] {
    const int g = static_cast<int>(threadIdx.x) / 4, t = static_cast<int>(threadIdx.x) % 4;
    const auto of_a = [&](int row, int k) { return pack(Pairs(), a[row][k], a[row][k + 1]); };
    const auto of_b = [&](int k) { return pack(Pairs(), b[k][g], b[k + 1][g]); };
    const uint32_t left[4] = {of_a(g, 2 * t), of_a(g + 8, 2 * t), of_a(g, 2 * t + 8),
                              of_a(g + 8, 2 * t + 8)};
    float sum[4] = {1, 1, 1, 1};
    mma(Pairs(), sum, left, of_b(2 * t), of_b(2 * t + 8));
    c[g][2 * t] = sum[0], c[g][2 * t + 1] = sum[1];
    c[g + 8][2 * t] = sum[2], c[g + 8][2 * t + 1] = sum[3];
  });
  for (int i = 0; i < 16; i++) {
    for (int j = 0; j < 8; j++) {
      float expected = 1;
      for (int k = 0; k < 16; k++) expected += a[i][k] * b[k][j];
      EXPECT_EQ(c[i][j], expected) << i << ", " << j;
    }
  }
}

TEST(Emulation, MmaMultipliesHalves) { check_mma<HalfPairs>(); }
TEST(Emulation, MmaMultipliesBfloats) { check_mma<BfloatPairs>(); }

TEST(Emulation, MatricesAreLoadedInFragments) {
  run(1, 32, 4 * 64 * sizeof(uint16_t), [] {
    auto* shared = static_cast<uint16_t*>(dynamic_shared());  // four matrices of 8 x 8
    for (int i = 0; i < 8; i++)
      shared[threadIdx.x * 8 + i] = static_cast<uint16_t>(threadIdx.x * 8 + i);
    __syncwarp();
    const uint32_t g = threadIdx.x / 4, t = threadIdx.x % 4;
    uint32_t rows[4], columns[4];
    load_matrices(rows, shared + threadIdx.x * 8);
    load_matrices_transposed(columns, shared + threadIdx.x * 8);
    for (uint32_t i = 0; i < 4; i++) {
      const uint32_t row = i * 64 + g * 8 + 2 * t, column = i * 64 + 2 * t * 8 + g;
      EXPECT_EQ(rows[i], row | (row + 1) << 16);
      EXPECT_EQ(columns[i], column | (column + 8) << 16);
    }
  });
}

TEST(Emulation, RoundsAsTheHardware) {
  EXPECT_EQ(to_half(1.0f + 0x1p-11f).bits, to_half(1.0f).bits);  // ties to even
  EXPECT_EQ(to_float(to_half(1.0f + 0x1.8p-10f)), 1.0f + 0x1p-9f);
  EXPECT_EQ(to_float(to_half(0x1p-24f)), 0x1p-24f);
  EXPECT_EQ(to_float(to_half(1e6f)), INFINITY);
  EXPECT_EQ(to_float(to_bfloat(1.0f + 0x1p-8f)), 1.0f);
  EXPECT_EQ(to_float(to_bfloat(-1.0f - 0x1.8p-7f)), -1.0f - 0x1p-6f);
  EXPECT_TRUE(std::isnan(to_float(to_half(NAN))) && std::isnan(to_float(to_bfloat(NAN))));
  EXPECT_EQ(add_bfloats(pack(BfloatPairs(), 143, 128), pack(BfloatPairs(), -136, -136)),
            pack(BfloatPairs(), 7, -8));
  EXPECT_EQ(select_bytes(0x33221100u, 0x77665544u, 0x7531u), 0x77553311u);
}

}  // namespace
}  // namespace ingot::cuda

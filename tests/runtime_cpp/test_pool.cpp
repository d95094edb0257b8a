#include <gtest/gtest.h>

#include <cstring>
#include <fstream>
#include <string>
#include <thread>
#include <vector>

#include "host/pool.h"

namespace ingot::host {
namespace {

TEST(Pool, MemoryIsAlignedAndWhollyUsable) {
  for (const size_t bytes : {size_t{0}, size_t{1}, size_t{63}, size_t{512}, size_t{513},
                             size_t{1000}, size_t{4097}, size_t{1} << 20, (size_t{5} << 20) + 1}) {
    char* data = pool_allocate(bytes);
    ASSERT_NE(data, nullptr);
    EXPECT_EQ(reinterpret_cast<uintptr_t>(data) % 64, 0u) << bytes;
    std::memset(data, 0xff, bytes);
    pool_free(data, bytes);
  }
}

// The flags that the kernel keeps of the mapping that holds `address`, as /proc/self/smaps has
// them.
std::string flags_of(const char* address) {
  const auto at = reinterpret_cast<uintptr_t>(address);
  std::ifstream smaps("/proc/self/smaps");
  bool here = false;
  for (std::string line; std::getline(smaps, line);) {
    char* end = nullptr;
    const uintptr_t first = std::strtoull(line.c_str(), &end, 16);
    if (*end == '-') here = first <= at && at < std::strtoull(end + 1, nullptr, 16);
    if (here && line.rfind("VmFlags:", 0) == 0) return line + " ";
  }
  return "";
}

TEST(Pool, LargeMemoryAsksForHugePagesAndSmallDoesNot) {
  constexpr size_t kLarge = size_t{6} << 20, kSmall = size_t{1} << 20;
  char *large = pool_allocate(kLarge), *small = pool_allocate(kSmall);
  const bool kernel_has_them =
      std::ifstream("/sys/kernel/mm/transparent_hugepage/enabled").is_open();
  EXPECT_EQ(flags_of(large).find(" hg ") != std::string::npos, kernel_has_them);
  EXPECT_EQ(flags_of(small).find(" hg "), std::string::npos);
  EXPECT_NE(flags_of(small), "");
  pool_free(large, kLarge);
  pool_free(small, kSmall);
}

// The classes are fine enough that the sizes of a step come back; every size is tried, since a
// class smaller than its request would be a buffer overrun.
TEST(Pool, EveryClassHoldsTheSizesItServes) {
  for (size_t bytes = 1; bytes < 20000; bytes++) {
    char* data = pool_allocate(bytes);
    data[bytes - 1] = 1;
    pool_free(data, bytes);
  }
}

TEST(Pool, AStepLikeTheOneBeforeTakesNothingFromTheSystem) {
  const auto step = [] {
    std::vector<std::pair<char*, size_t>> held;
    for (const size_t bytes : {1000, 70000, 70000, 300, 4096}) {
      held.emplace_back(pool_allocate(bytes), bytes);
    }
    for (const auto& [data, bytes] : held) pool_free(data, bytes);
  };
  step();
  const size_t before = pool_bytes();
  for (int i = 0; i < 100; i++) step();
  EXPECT_EQ(pool_bytes(), before);
}

// Each length of a prompt has sizes of its own, which lie where those of others lay.
TEST(Pool, StepsOfManySizesShareTheirMemory) {
  constexpr size_t kLargest = size_t{64} << 20;
  const auto step = [](size_t bytes) {
    char* one = pool_allocate(bytes);
    char* two = pool_allocate(bytes / 3);
    pool_free(one, bytes);
    pool_free(two, bytes / 3);
  };
  const size_t before = pool_bytes();
  step(kLargest);
  const size_t most = pool_bytes();
  EXPECT_LE(most, before + kLargest / 3 * 4 + 8192);
  for (size_t bytes = size_t{6} << 20; bytes < kLargest; bytes += bytes / 8) step(bytes);
  EXPECT_EQ(pool_bytes(), most);
}

TEST(Pool, ThreadsNeverShareABuffer) {
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; t++) {
    threads.emplace_back([t] {
      for (int i = 0; i < 5000; i++) {
        const size_t bytes = 600 + 37 * (i % 50);
        char* data = pool_allocate(bytes);
        std::memset(data, t, bytes);
        std::this_thread::yield();
        for (size_t k = 0; k < bytes; k += 61) ASSERT_EQ(data[k], t);
        pool_free(data, bytes);
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
}

}  // namespace
}  // namespace ingot::host

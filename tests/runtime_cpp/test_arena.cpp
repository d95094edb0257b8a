#include <gtest/gtest.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdint>
#include <cstring>
#include <fstream>
#include <map>
#include <new>
#include <random>

#include "host/arena.h"

namespace ingot::host {
namespace {
constexpr size_t kPage = 4096;

TEST(Arena, WhatNeighboursLeftServesOneThatIsLarger) {
  Arena arena(false);
  char* one = arena.allocate(3 * kPage);
  char* two = arena.allocate(5 * kPage);
  char* three = arena.allocate(2 * kPage);
  arena.free(one, 3 * kPage);
  arena.free(three, 2 * kPage);
  arena.free(two, 5 * kPage);  // between both
  EXPECT_EQ(arena.allocate(10 * kPage), one);
  EXPECT_EQ(arena.held(), 10 * kPage);
}

TEST(Arena, TheSmallestThatIsLargeEnoughIsTaken) {
  Arena arena(false);
  char* wide = arena.allocate(8 * kPage);
  arena.allocate(1);
  char* narrow = arena.allocate(2 * kPage);
  arena.allocate(1);
  arena.free(wide, 8 * kPage);
  arena.free(narrow, 2 * kPage);
  EXPECT_EQ(arena.allocate(kPage + 1), narrow);
  EXPECT_EQ(arena.allocate(2 * kPage), wide);
}

TEST(Arena, WhatIsFreeAtTheEndIsPartOfWhatIsLarger) {
  Arena arena(false);
  char* one = arena.allocate(kPage);
  char* last = arena.allocate(2 * kPage);
  arena.free(last, 2 * kPage);
  EXPECT_EQ(arena.allocate(7 * kPage), last);
  EXPECT_EQ(arena.held(), 8 * kPage);
  EXPECT_EQ(last - one, static_cast<ptrdiff_t>(kPage));
}

TEST(Arena, ASmallOneDoesNotCutTheLastStretchOffFromWhatIsBeforeIt) {
  Arena arena(false);
  char* one = arena.allocate(2 * kPage);
  char* large = arena.allocate(8 * kPage);
  arena.free(large, 8 * kPage);
  EXPECT_EQ(arena.allocate(2 * kPage), large + 6 * kPage);
  arena.free(one, 2 * kPage);
  EXPECT_EQ(arena.allocate(8 * kPage), one);
  EXPECT_EQ(arena.held(), 10 * kPage);
}

TEST(Arena, WhatNoMachineHasIsRefusedAndNothingIsLost) {
  Arena arena(true);
  char* one = arena.allocate(kPage);
  for (const size_t bytes : {SIZE_MAX, SIZE_MAX - kPage, size_t{1} << 60, size_t{1} << 50}) {
    EXPECT_THROW(arena.allocate(bytes), std::bad_alloc) << bytes;
  }
  EXPECT_EQ(arena.held(), kPage);
  arena.free(one, kPage);
  EXPECT_EQ(arena.allocate(2 * kPage), one);
}

// Against a map of what is in use: whatever the order, no two overlap, all can be written, and when
// all is free it is one stretch.
TEST(Arena, NothingInUseIsGivenAgain) {
  for (unsigned seed = 0; seed < 8; seed++) {
    Arena arena(seed % 2 == 1);
    std::mt19937 random(seed);
    std::map<char*, size_t> used;
    size_t in_use = 0, most = 0;
    for (int i = 0; i < 400; i++) {
      if (random() % 5 < 3) {
        const size_t bytes = 1 + random() % (i % 20 == 0 ? 3'000'000 : 40'000);
        char* data = arena.allocate(bytes);
        const auto [after, is_new] = used.emplace(data, bytes);
        ASSERT_TRUE(is_new);
        if (after != used.begin()) {
          const auto [before, length] = *std::prev(after);
          ASSERT_LE(before + length, data);
        }
        if (std::next(after) != used.end()) {
          ASSERT_LE(data + after->second, std::next(after)->first);
        }
        data[0] = data[after->second - 1] = 1;
        most = std::max(most, in_use += bytes);
      } else if (!used.empty()) {
        const auto any = std::next(used.begin(), static_cast<long>(random() % used.size()));
        arena.free(any->first, any->second);
        in_use -= any->second;
        used.erase(any);
      }
    }
    for (const auto& [data, bytes] : used) arena.free(data, bytes);
    const size_t held = arena.held();
    EXPECT_LT(held, 2 * most) << seed;
    arena.allocate(held);
    EXPECT_EQ(arena.held(), held);
  }
}

#if defined(__SANITIZE_ADDRESS__)
TEST(Arena, TheSanitizerSeesWhatIsNotInUse) {
  Arena arena(false);
  char* data = arena.allocate(1000);
  EXPECT_DEATH(data[1000] = 1, "use-after-poison");
  arena.free(data, 1000);
  EXPECT_DEATH(data[0] = 1, "use-after-poison");
  data = arena.allocate(2000);
  std::memset(data, 1, 2000);
}
#endif

#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)  // these want all addresses
// As under `ulimit -v`: in a process of its own.
int under_a_limit() {
  size_t pages = 0;
  std::ifstream("/proc/self/statm") >> pages;
  const rlim_t most = pages * kPage + (size_t{400} << 20);
  const rlimit limit{most, most};
  if (pages == 0 || setrlimit(RLIMIT_AS, &limit) != 0) return 1;
  Arena arena(true);
  std::memset(arena.allocate(size_t{16} << 20), 1, size_t{16} << 20);
  std::memset(arena.allocate(size_t{32} << 20), 1, size_t{32} << 20);
  try {
    arena.allocate(size_t{1} << 30);
  } catch (const std::bad_alloc&) {
    return 0;
  }
  return 2;
}

TEST(Arena, ALimitOfAddressesIsKeptTo) {
  const pid_t child = fork();
  ASSERT_GE(child, 0);
  if (child == 0) _exit(under_a_limit());
  int status = 0;
  ASSERT_EQ(waitpid(child, &status, 0), child);
  ASSERT_TRUE(WIFEXITED(status));
  EXPECT_EQ(WEXITSTATUS(status), 0);
}
#endif
}  // namespace
}  // namespace ingot::host

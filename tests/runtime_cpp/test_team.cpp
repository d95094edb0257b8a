#include <gtest/gtest.h>
#include <omp.h>

#include <atomic>
#include <thread>

#include "cpu.h"
#include "team.h"

namespace ingot {
namespace {

TEST(Team, TakesTheCoresThatOthersLeave) {
  const CpuTimes before{100, 10, 50};
  EXPECT_EQ(free_cores_between(before, {100, 10, 51}, 4, 4), 4);    // nobody works
  EXPECT_EQ(free_cores_between(before, {104, 14, 51}, 4, 4), 4);    // we alone
  EXPECT_EQ(free_cores_between(before, {104, 13, 51}, 4, 4), 3);    // another has a core
  EXPECT_EQ(free_cores_between(before, {102.4, 12, 51}, 4, 4), 4);  // less than half of one
  EXPECT_EQ(free_cores_between(before, {108, 10, 52}, 4, 4), 1);    // all of them for two seconds
}

TEST(Team, StaysWithinWhatTheProcessMayUse) {
  const CpuTimes before{0, 0, 0};
  EXPECT_EQ(free_cores_between(before, {0, 0, 1}, 8, 3), 3);
  EXPECT_EQ(free_cores_between(before, {6, 0, 1}, 8, 3), 2);
  EXPECT_EQ(free_cores_between(before, {80, 0, 1}, 8, 3), 1);
  EXPECT_EQ(free_cores_between(before, before, 8, 3), 3);     // no time has passed
  EXPECT_EQ(free_cores_between(before, {0, 1, 1}, 8, 3), 3);  // ticks lag behind our own clock
}

TEST(Team, AFixedSizeStays) {
  Team team(3);
  for (int i = 0; i < 2; i++) {
    team.assemble();
    EXPECT_EQ(omp_get_max_threads(), 3);
  }
}

// What other processes do meanwhile cannot be known here; our own load must not count as theirs.
TEST(Team, OurOwnThreadsAreNotOthers) {
  Team team(0);
  team.assemble();
  EXPECT_GE(omp_get_max_threads(), 1);
  std::atomic<bool> stop{false};
  std::thread busy([&] {
    while (!stop) {
    }
  });
  std::this_thread::sleep_for(std::chrono::milliseconds(300));
  team.assemble();
  stop = true;
  busy.join();
  EXPECT_GE(omp_get_max_threads(), 1);
  EXPECT_LE(omp_get_max_threads(), usable_cores());
}

}  // namespace
}  // namespace ingot

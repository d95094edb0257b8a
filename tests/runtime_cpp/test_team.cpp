#include <gtest/gtest.h>
#include <omp.h>
#include <sched.h>
#include <signal.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <chrono>
#include <condition_variable>
#include <filesystem>
#include <future>
#include <mutex>
#include <set>
#include <string>
#include <thread>
#include <vector>

#include "barriers.h"
#include "cpu.h"
#include "soon.h"
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

// The cores that each thread of the team may run on.
std::vector<std::set<int>> cores_of_team() {
  std::vector<std::set<int>> cores(omp_get_max_threads());
#pragma omp parallel
  {
    cpu_set_t set;
    CPU_ZERO(&set);
    sched_getaffinity(0, sizeof set, &set);
    for (int core = 0; core < CPU_SETSIZE; core++)
      if (CPU_ISSET(core, &set)) cores[omp_get_thread_num()].insert(core);
  }
  return cores;
}

TEST(Team, OfAllCoresHasOneForEachThread) {
  SKIP_WHERE_BARRIERS_ARE_UNSEEN();
  cpu_set_t set;
  ASSERT_EQ(sched_getaffinity(0, sizeof set, &set), 0);
  const auto count = static_cast<size_t>(CPU_COUNT(&set));
  if (count == 1) GTEST_SKIP() << "one core has one thread";
  Team team(static_cast<int>(count));
  for (int step = 0; step < 2; step++) {
    team.assemble();
    const std::vector<std::set<int>> cores = cores_of_team();
    const std::set<std::set<int>> apart(cores.begin(), cores.end());
    EXPECT_EQ(apart.size(), count);
    for (const std::set<int>& own : apart) EXPECT_EQ(own.size(), 1u);
  }
}

TEST(Team, ThatEndsLeavesTheCallerItsCores) {
  SKIP_WHERE_BARRIERS_ARE_UNSEEN();
  cpu_set_t before, after;
  ASSERT_EQ(sched_getaffinity(0, sizeof before, &before), 0);
  Team team(CPU_COUNT(&before));
  team.assemble();
  std::mutex mutex;
  std::condition_variable work;
  std::unique_lock lock(mutex);
  int asked = 0;
  // Ready when it is asked after the team has ended: a wait for a while asks first and last.
  team.wait(work, lock, [&] { return ++asked > 2; });
  ASSERT_EQ(sched_getaffinity(0, sizeof after, &after), 0);
  EXPECT_TRUE(CPU_EQUAL(&before, &after));
}

// Where somebody else works, one core fewer is taken, whichever that is.
TEST(Team, ThatGetsSmallerIsBoundNoLonger) {
  SKIP_WHERE_BARRIERS_ARE_UNSEEN();
  const int count = usable_cores();
  Team team(0);
  team.assemble();
  if (count == 1 || omp_get_max_threads() < count) GTEST_SKIP() << "needs all of several cores";
  const pid_t busy = fork();
  while (busy == 0) __asm__ volatile("pause");
  std::this_thread::sleep_for(std::chrono::milliseconds(600));
  team.assemble();
  kill(busy, SIGKILL);
  waitpid(busy, nullptr, 0);
  if (omp_get_max_threads() == count) GTEST_SKIP() << "the system does not say who works";
  for (const std::set<int>& cores : cores_of_team())
    EXPECT_EQ(cores.size(), static_cast<size_t>(count));
}

TEST(Team, OfFewerThreadsThanCoresIsLeftToTheSystem) {
  SKIP_WHERE_BARRIERS_ARE_UNSEEN();
  cpu_set_t set;
  ASSERT_EQ(sched_getaffinity(0, sizeof set, &set), 0);
  if (CPU_COUNT(&set) < 3) GTEST_SKIP() << "needs a team of two, and a third core";
  Team team(2);
  team.assemble();
  for (const std::set<int>& cores : cores_of_team())
    EXPECT_EQ(cores.size(), static_cast<size_t>(CPU_COUNT(&set)));
}

std::set<std::string> threads_of_process() {
  std::set<std::string> threads;
  for (const auto& entry : std::filesystem::directory_iterator("/proc/self/task"))
    threads.insert(entry.path());
  return threads;
}

void have_team(int threads) {
#pragma omp parallel num_threads(threads)
  threads = 0;
}

TEST(Team, OfTheCallerEndsAndComesBack) {
  SKIP_WHERE_BARRIERS_ARE_UNSEEN();
  std::async(std::launch::async,
             [] {  // in a thread that had none
               const std::set<std::string> alone = threads_of_process();
               for (int i = 0; i < 2; i++) {
                 have_team(3);
                 EXPECT_EQ(threads_of_process().size(), alone.size() + 2);
                 end_own_team();
                 EXPECT_TRUE(soon([&] { return threads_of_process() == alone; }));
               }
             })
      .get();
}

TEST(Team, EndsWhileThereIsNoWork) {
  SKIP_WHERE_BARRIERS_ARE_UNSEEN();
  std::mutex mutex;
  std::condition_variable work;
  bool ready = false;
  std::set<std::string> alone;  // set when there is a team
  std::thread waiter([&] {
    const std::set<std::string> threads = threads_of_process();
    Team team(3);
    team.assemble();
    have_team(3);
    EXPECT_GE(threads_of_process().size(), threads.size() + 2);
    std::unique_lock lock(mutex);
    alone = threads;
    team.wait(work, lock, [&] { return ready; });
  });
  EXPECT_TRUE(soon([&] {
    const std::lock_guard lock(mutex);
    return threads_of_process() == alone;
  }));
  {
    const std::lock_guard lock(mutex);
    ready = true;
  }
  work.notify_one();
  waiter.join();
}

// All our threads' time is our own, and part of the machine's: it cannot pass for that of others.
TEST(Team, CountsOurOtherThreadsAsOurs) {
  constexpr double kBusy = 0.3, kTicks = 0.1;  // the machine's count is coarse
  const CpuTimes before = read_times();
  std::thread([] {
    timespec used{};
    do {
      clock_gettime(CLOCK_THREAD_CPUTIME_ID, &used);
    } while (used.tv_sec == 0 && used.tv_nsec < static_cast<long>(kBusy * 1e9));
  }).join();
  const CpuTimes after = read_times();
  EXPECT_GE(after.own - before.own, kBusy);
  EXPECT_GE(after.wall - before.wall, kBusy);
  if (after.machine == 0) GTEST_SKIP() << "this system does not say what the machine does";
  EXPECT_GE(after.machine - before.machine, kBusy - kTicks);
}

TEST(Team, TakesAtLeastOneCoreAndNoMoreThanAllowed) {
  const int usable = usable_cores();
  Team team(0);
  team.assemble();
  EXPECT_GE(omp_get_max_threads(), 1);
  EXPECT_LE(omp_get_max_threads(), usable);
}

// For its first step the calling thread is bound to one core, which is not all it may use.
TEST(Team, CountsTheCoresItMayUseAfterTheFirstStep) {
  const int usable = usable_cores();
  Team team(0);
  team.assemble();
  const CpuTimes before = read_times();
  std::this_thread::sleep_for(std::chrono::milliseconds(300));
  const CpuTimes after = read_times();
  team.assemble();
  const int cores = static_cast<int>(sysconf(_SC_NPROCESSORS_ONLN));
  EXPECT_NEAR(omp_get_max_threads(), free_cores_between(before, after, cores, usable), 1);
}

}  // namespace
}  // namespace ingot

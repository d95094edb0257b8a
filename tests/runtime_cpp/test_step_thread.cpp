#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <future>
#include <set>
#include <stdexcept>
#include <string>
#include <vector>

#include "barriers.h"
#include "cpu.h"
#include "step_thread.h"

namespace ingot {
namespace {

std::thread::id thread_of(StepThread& thread) {
  std::thread::id found;
  thread.run([&] { found = std::this_thread::get_id(); });
  return found;
}

TEST(StepThread, RunsAllOnOneThreadOneAfterTheOther) {
  StepThread thread(1);
  const std::thread::id first = thread_of(thread);
  EXPECT_NE(first, std::this_thread::get_id());
  int sum = 0;  // not atomic: a data race would show under the thread sanitizer
  std::vector<std::thread> callers;
  for (int caller = 0; caller < 8; caller++)
    callers.emplace_back([&] {
      for (int i = 0; i < 100; i++)
        thread.run([&] {
          EXPECT_EQ(std::this_thread::get_id(), first);
          sum++;
        });
    });
  for (std::thread& caller : callers) caller.join();
  EXPECT_EQ(sum, 800);
}

TEST(StepThread, WhatAStepThrowsReachesItsCaller) {
  StepThread thread(1);
  EXPECT_THROW(thread.run([] { throw std::runtime_error("no"); }), std::runtime_error);
  bool ran = false;
  thread.run([&] { ran = true; });
  EXPECT_TRUE(ran);
}

TEST(StepThread, TurnsAlternateUntilTheyHaveEnough) {
  StepThread thread(1);
  std::string order;
  std::promise<void> both_posted, done;
  thread.post([&](Team&) { return both_posted.get_future().wait(), false; });
  const auto turns = [&](char name, size_t last) {
    return [&order, &done, name, last](Team&) {
      order += name;
      if (order.size() == 7) done.set_value();
      return order.size() < last;
    };
  };
  thread.post(turns('a', 7));
  thread.post(turns('b', 4));
  both_posted.set_value();
  done.get_future().wait();
  EXPECT_EQ(order, "ababaaa");
}

// More than there are cores, so that no second team of that size has room.
const int kAll = usable_cores() + 1;

TEST(StepThread, IsSharedWhereTheCoresAreTooFewForAnother) {
  const auto one = StepThread::of(kAll), two = StepThread::of(kAll);
  EXPECT_EQ(one, two);
  EXPECT_NE(StepThread::of(kAll + 1), one);  // teams of another size
  const auto free = StepThread::of(0);
  EXPECT_EQ(StepThread::of(0), free);
  EXPECT_NE(free, one);
}

TEST(StepThread, OfOneThreadIsNotShared) { EXPECT_NE(StepThread::of(1), StepThread::of(1)); }

TEST(StepThread, TeamsThatFitTheCoresAreApart) {
  const int half = usable_cores() / 2;
  if (half < 2) GTEST_SKIP() << "needs four cores";
  const auto one = StepThread::of(half), two = StepThread::of(half);
  EXPECT_NE(one, two);
  std::set<std::shared_ptr<StepThread>> all{one, two};
  std::vector<std::shared_ptr<StepThread>> more;
  for (int i = 0; i < 4; i++) all.insert(more.emplace_back(StepThread::of(half)));
  EXPECT_EQ(all.size(), static_cast<size_t>(usable_cores() / half));
  EXPECT_EQ(one.use_count(), two.use_count());  // the newcomers went to both alike
}

TEST(StepThread, EndsWithTheLastThatHasIt) {
  auto one = StepThread::of(kAll), two = StepThread::of(kAll);
  const std::weak_ptr<StepThread> thread = one;
  const std::thread::id id = thread_of(*one);
  one.reset();
  EXPECT_EQ(thread_of(*two), id);
  two.reset();
  EXPECT_TRUE(thread.expired());
  thread_of(*StepThread::of(kAll));
}

std::set<pid_t> team_of(StepThread& thread) {
  std::mutex mutex;
  std::set<pid_t> ids;
  thread.run([&] {
#pragma omp parallel
    {
      const std::lock_guard lock(mutex);
      ids.insert(gettid());
    }
  });
  return ids;
}

TEST(StepThread, TwoOfASizeHaveOneTeam) {
  SKIP_WHERE_BARRIERS_ARE_UNSEEN();
  const auto one = StepThread::of(kAll), two = StepThread::of(kAll);
  const std::set<pid_t> team = team_of(*one);
  EXPECT_EQ(team.size(), static_cast<size_t>(kAll));
  EXPECT_EQ(team_of(*two), team);
  EXPECT_EQ(team_of(*one), team);
}

TEST(StepThread, CallersComeAndGoAtOnce) {
  std::atomic<int> sum = 0;
  std::vector<std::thread> callers;
  for (int caller = 0; caller < 8; caller++)
    callers.emplace_back([&, caller] {
      for (int i = 0; i < 50; i++) StepThread::of(kAll + caller % 2)->run([&] { sum++; });
    });
  for (std::thread& caller : callers) caller.join();
  EXPECT_EQ(sum, 400);
}

TEST(StepThread, AForkedChildHasItsOwn) {
#ifdef __SANITIZE_THREAD__
  GTEST_SKIP() << "ThreadSanitizer ends a child that makes a thread where its parent had some";
#endif
  const auto parents = StepThread::of(kAll);
  thread_of(*parents);
  const pid_t child = fork();
  if (child == 0) {
    const auto own = StepThread::of(kAll);
    bool ran = false;
    own->run([&] { ran = true; });
    _exit(own != parents && parents->in_child() && !own->in_child() && ran ? 0 : 1);
  }
  int status = -1;
  ASSERT_EQ(waitpid(child, &status, 0), child);
  EXPECT_EQ(status, 0);
}

}  // namespace
}  // namespace ingot

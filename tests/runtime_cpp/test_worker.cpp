#include <gtest/gtest.h>

#include <stdexcept>
#include <vector>

#include "worker.h"

namespace ingot {
namespace {

TEST(Worker, RunsAllOnOneThreadOneAfterTheOther) {
  Worker worker(1);
  std::thread::id first;
  worker.run([&] { first = std::this_thread::get_id(); });
  EXPECT_NE(first, std::this_thread::get_id());
  int sum = 0;  // not atomic: a data race would show under the thread sanitizer
  std::vector<std::thread> callers;
  for (int caller = 0; caller < 8; caller++)
    callers.emplace_back([&] {
      for (int i = 0; i < 100; i++)
        worker.run([&] {
          EXPECT_EQ(std::this_thread::get_id(), first);
          sum++;
        });
    });
  for (std::thread& caller : callers) caller.join();
  EXPECT_EQ(sum, 800);
}

TEST(Worker, WhatAJobThrowsReachesItsCaller) {
  Worker worker(1);
  EXPECT_THROW(worker.run([] { throw std::runtime_error("no"); }), std::runtime_error);
  bool ran = false;
  worker.run([&] { ran = true; });
  EXPECT_TRUE(ran);
}

}  // namespace
}  // namespace ingot

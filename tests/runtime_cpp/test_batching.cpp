// Many sessions of one package at once: each gets what it would get alone.
#include <atomic>
#include <thread>

#include "toy_package.h"

namespace ingot::test {
namespace {

using BatchingTest = PackageTest;

TEST_F(BatchingTest, ConcurrentSessionsDoNotDisturbEachOther) {
  const Package package = open(toy_source(), 16 * kMaxSeqLen);
  std::vector<std::thread> callers;
  for (int64_t caller = 0; caller < 8; caller++) {
    callers.emplace_back([&package, caller] {
      for (int64_t round = 0; round < 6; round++) {
        const Session session = new_session(package);
        const std::vector<int64_t> prompt = prompt_of(1 + caller * 57 % 400 + round, caller);
        const Generated made = generate(session, prompt, greedy_sampling(20 + caller));
        ASSERT_EQ(made.status, INGOT_OK) << ingot_last_error();
        EXPECT_EQ(made.tokens, greedy(prompt, 20 + caller)) << "caller " << caller;
        const Generated more = generate(session, {round}, greedy_sampling(9));
        EXPECT_EQ(more.tokens, greedy(joined(joined(prompt, made.tokens), {round}), 9));
      }
    });
  }
  for (std::thread& caller : callers) caller.join();
}

TEST_F(BatchingTest, LogitsAndGenerationMix) {
  const Package package = open();
  std::thread scorer([&package] {
    for (int round = 0; round < 10; round++) {
      const Session session = new_session(package);
      const std::vector<int64_t> tokens = prompt_of(90, round);
      std::vector<float> logits(tokens.size() * kVocab);
      ASSERT_EQ(ingot_session_logits(session.get(), tokens.data(), tokens.size(), logits.data()),
                INGOT_OK);
      EXPECT_EQ(logits[89 * kVocab + 12], logit(hash(tokens), 12));
    }
  });
  for (int round = 0; round < 10; round++) {
    const std::vector<int64_t> prompt = prompt_of(20, 50 + round);
    EXPECT_EQ(generate(new_session(package), prompt, greedy_sampling(10)).tokens,
              greedy(prompt, 10));
  }
  scorer.join();
}

TEST_F(BatchingTest, OneSessionsCancellationLeavesTheOthers) {
  const Package package = open();
  std::thread other([&package] {
    const std::vector<int64_t> prompt = prompt_of(10, 2);
    EXPECT_EQ(generate(new_session(package), prompt, greedy_sampling(150)).tokens,
              greedy(prompt, 150));
  });
  for (int round = 0; round < 10; round++) {
    const Session session = new_session(package);
    const auto stop = [](int64_t) { return false; };
    EXPECT_EQ(generate(session, {1}, greedy_sampling(50), stop).status, INGOT_CANCELLED)
        << ingot_last_error();
  }
  other.join();
}

TEST_F(BatchingTest, ABusySessionRefusesASecondCall) {
  const Package package = open();
  const Session session = new_session(package);
  std::atomic<bool> started = false, go_on = false;
  const std::vector<int64_t> prompt = prompt_of(10);
  std::thread caller([&] {
    const auto wait = [&](int64_t) {
      started = true;
      go_on.wait(false);
      return true;
    };
    EXPECT_EQ(generate(session, prompt, greedy_sampling(20), wait).tokens, greedy(prompt, 20));
  });
  while (!started) std::this_thread::yield();
  EXPECT_EQ(generate(session, {1}, greedy_sampling(1)).status, INGOT_BAD_INPUT);
  EXPECT_NE(std::string(ingot_last_error()).find("busy"), std::string::npos);
  std::vector<float> logits(kVocab);
  const int64_t token = 1;
  EXPECT_EQ(ingot_session_logits(session.get(), &token, 1, logits.data()), INGOT_BAD_INPUT);
  go_on = true;
  go_on.notify_all();
  caller.join();
}

TEST_F(BatchingTest, ResettingAndClosingStopACallInProgress) {
  const Package package = open();
  for (const bool close : {false, true}) {
    Session session = new_session(package);
    std::atomic<bool> started = false;
    std::thread caller([&, raw = session.get()] {
      const auto slow = [&](int64_t) {
        started = true;
        std::this_thread::sleep_for(std::chrono::milliseconds(2));
        return true;
      };
      const Generated made = generate(raw, {1}, greedy_sampling(600), slow);
      EXPECT_EQ(made.status, INGOT_CANCELLED);
      EXPECT_LT(made.tokens.size(), 600);
    });
    while (!started) std::this_thread::yield();
    if (close) {
      session.reset();
    } else {
      ingot_session_reset(session.get());
      EXPECT_EQ(ingot_session_length(session.get()), 0);
      EXPECT_EQ(generate(session, {1, 2}, greedy_sampling(5)).tokens, greedy({1, 2}, 5));
    }
    caller.join();
  }
}

TEST_F(BatchingTest, AFullCacheIsRefusedAndRoomComesBack) {
  const Package package = open(toy_source(), 64);
  const Session session = new_session(package);
  ASSERT_EQ(generate(session, prompt_of(40), greedy_sampling(8)).status, INGOT_OK);
  const Session late = new_session(package);
  EXPECT_EQ(generate(late, prompt_of(40), greedy_sampling(8)).status, INGOT_NO_SPACE);
  ingot_session_reset(session.get());
  ingot_session_reset(late.get());
  EXPECT_EQ(generate(late, prompt_of(40), greedy_sampling(8)).tokens, greedy(prompt_of(40), 8));
}

// Found before the first step, not after part of the answer was given.
TEST_F(BatchingTest, AnAnswerThatCannotFitTheCacheIsRefusedAtOnce) {
  const Package package = open(toy_source(), 64);
  const Generated made = generate(new_session(package), prompt_of(40), greedy_sampling(40));
  EXPECT_EQ(made.status, INGOT_NO_SPACE);
  EXPECT_TRUE(made.tokens.empty()) << made.tokens.size() << " tokens were given";
}

}  // namespace
}  // namespace ingot::test

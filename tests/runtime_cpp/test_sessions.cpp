// What happens to a session when a call of it fails, and to the others of its package: nothing.
#include <atomic>
#include <random>
#include <stdexcept>
#include <thread>

#include "toy_package.h"

namespace ingot::test {
namespace {

using SessionsTest = PackageTest;

std::vector<int64_t> answer(const Session& session, const std::vector<int64_t>& prompt,
                            int64_t count) {
  const Generated made = generate(session, prompt, greedy_sampling(count));
  EXPECT_EQ(made.status, INGOT_OK) << ingot_last_error();
  return made.tokens;
}

TEST_F(SessionsTest, AFailedCallLeavesTheSessionAsItWas) {
  const Package package = open();
  const Session session = new_session(package);
  const std::vector<int64_t> first = prompt_of(20);
  std::vector<int64_t> history = joined(first, answer(session, first, 5));
  std::vector<int64_t> failing = prompt_of(300);  // fails in the second of two steps
  failing.push_back(kFailingToken);
  std::vector<float> logits(failing.size() * kVocab);
  EXPECT_EQ(generate(session, failing, greedy_sampling(1)).status, INGOT_FAILED);
  EXPECT_EQ(ingot_session_length(session.get()), 25);
  EXPECT_EQ(ingot_session_logits(session.get(), failing.data(), failing.size(), logits.data()),
            INGOT_FAILED);
  EXPECT_EQ(ingot_session_length(session.get()), 25);
  EXPECT_EQ(answer(session, {4}, 9), greedy(joined(history, {4}), 9));
}

TEST_F(SessionsTest, OneSessionsFailureLeavesTheOthers) {
  const Package package = open();
  std::atomic<bool> done = false;
  std::vector<std::thread> others;
  for (int64_t other = 0; other < 3; other++)
    others.emplace_back([&package, &done, other] {
      const Session session = new_session(package);
      const std::vector<int64_t> prompt = prompt_of(10, other);
      const Generated made =
          generate(session, prompt, greedy_sampling(600), [&](int64_t) { return !done; });
      EXPECT_NE(made.status, INGOT_FAILED) << ingot_last_error();
      EXPECT_EQ(made.tokens, greedy(prompt, static_cast<int64_t>(made.tokens.size())));
    });
  for (int round = 0; round < 10; round++)
    EXPECT_EQ(generate(new_session(package), {1, kFailingToken}, greedy_sampling(1)).status,
              INGOT_FAILED);
  done = true;
  for (std::thread& other : others) other.join();
}

TEST_F(SessionsTest, ACallbackThatThrowsEndsItsCallAlone) {
  const Package package = open();
  const Session session = new_session(package);
  const Generated made = generate(session, {3, 1}, greedy_sampling(50), [](int64_t) -> bool {
    throw std::runtime_error("the caller's own failure");
  });
  EXPECT_EQ(made.status, INGOT_FAILED);
  EXPECT_STREQ(ingot_last_error(), "the caller's own failure");
  EXPECT_EQ(made.tokens, greedy({3, 1}, 1));
  EXPECT_EQ(ingot_session_length(session.get()), 3);
  EXPECT_EQ(answer(session, {9}, 5), greedy(joined({3, 1, made.tokens[0]}, {9}), 5));
}

TEST_F(SessionsTest, ACallbackMayCallOtherSessions) {
  const Package package = open();
  const Session outer = new_session(package), inner = new_session(package);
  const Generated made = generate(outer, {1}, greedy_sampling(6), [&](int64_t token) {
    EXPECT_EQ(answer(inner, {token}, 3).size(), 3u);
    ingot_session_reset(inner.get());
    EXPECT_EQ(generate(outer, {1}, greedy_sampling(1)).status, INGOT_BAD_INPUT);  // busy
    return ingot_session_length(outer.get()) > 0;
  });
  EXPECT_EQ(made.tokens, greedy({1}, 6));
}

// 4 blocks of 16 tokens: one session holds two of them, so the other stops at its 33rd token.
TEST_F(SessionsTest, WhenTheCacheIsFullASessionHoldsWhatItsCallerSaw) {
  const Package package = open(toy_source(), 64);
  const Session holding = new_session(package), growing = new_session(package);
  answer(holding, prompt_of(20), 1);
  const std::vector<int64_t> prompt = prompt_of(20, 3);
  const Generated made = generate(growing, prompt, greedy_sampling(44));
  EXPECT_EQ(made.status, INGOT_NO_SPACE);
  EXPECT_EQ(made.tokens, greedy(prompt, 13));
  EXPECT_EQ(ingot_session_length(growing.get()), 33);
  ingot_session_reset(holding.get());
  EXPECT_EQ(answer(growing, {7}, 20), greedy(joined(joined(prompt, made.tokens), {7}), 20));
}

// Whichever comes last to a full cache is refused; what either has made until then is right.
TEST_F(SessionsTest, AFullCacheOfOneLeavesTheOthers) {
  const Package package = open(toy_source(), 64);
  const Session small = new_session(package), large = new_session(package);
  const auto round_of = [](const Session& session, const std::vector<int64_t>& prompt,
                           int64_t tokens) {
    const Generated made = generate(session, prompt, greedy_sampling(tokens));
    EXPECT_TRUE(made.status == INGOT_OK || made.status == INGOT_NO_SPACE) << ingot_last_error();
    EXPECT_EQ(made.tokens, greedy(prompt, static_cast<int64_t>(made.tokens.size())));
    if (made.status == INGOT_OK) {
      EXPECT_EQ(made.tokens.size(), static_cast<size_t>(tokens));
    }
    ingot_session_reset(session.get());
  };
  std::atomic<bool> done = false;
  std::thread other([&] {
    while (!done) round_of(small, prompt_of(5), 11);
  });
  for (int round = 0; round < 5; round++) {
    round_of(large, prompt_of(30, round), 34);  // grows to all four blocks
  }
  done = true;
  other.join();
  EXPECT_EQ(answer(small, prompt_of(5), 11), greedy(prompt_of(5), 11));
}

TEST_F(SessionsTest, ARefusedPromptTakesNoBlocks) {
  const Package package = open(toy_source(), 64);
  const Session holding = new_session(package), refused = new_session(package);
  answer(holding, prompt_of(17), 1);  // two blocks
  EXPECT_EQ(generate(refused, prompt_of(33), greedy_sampling(1)).status, INGOT_NO_SPACE);
  EXPECT_EQ(ingot_session_length(refused.get()), 0);
  EXPECT_EQ(answer(new_session(package), prompt_of(32), 1), greedy(prompt_of(32), 1));
}

// What a stopped call ran ahead goes back.
TEST_F(SessionsTest, AStoppedCallGivesItsSurplusBack) {
  const Package package = open(toy_source(), 64);
  const Session session = new_session(package);
  const Generated made = generate(session, {1}, greedy_sampling(63), [](int64_t) {
    std::this_thread::sleep_for(std::chrono::milliseconds(40));  // the step thread makes them all
    return false;
  });
  EXPECT_EQ(made.status, INGOT_CANCELLED);
  EXPECT_EQ(answer(new_session(package), prompt_of(48), 1), greedy(prompt_of(48), 1));
}

TEST_F(SessionsTest, APackageMayBeClosedBeforeItsSessions) {
  Package package = open();
  const Session one = new_session(package), two = new_session(package);
  package.reset();
  EXPECT_EQ(answer(one, {1, 2}, 5), greedy({1, 2}, 5));
  EXPECT_EQ(answer(two, {3}, 5), greedy({3}, 5));
}

// Every kind of call and end at once; each session still gets what it would get alone.
TEST_F(SessionsTest, EightThreadsOfEverything) {
  const Package package = open(toy_source(), 8 * kMaxSeqLen);
  std::vector<std::thread> callers;
  for (int64_t caller = 0; caller < 8; caller++)
    callers.emplace_back([&package, caller] {
      std::minstd_rand random(static_cast<unsigned>(caller) + 1);
      Session session = new_session(package);
      std::vector<int64_t> history;
      for (int64_t round = 0; round < 25; round++) {
        if (history.size() > 400 || random() % 8 == 0) {
          if (random() % 2) session = new_session(package);
          ingot_session_reset(session.get());
          history.clear();
        }
        std::vector<int64_t> prompt = prompt_of(1 + random() % 120, caller + 8 * round);
        const auto count = static_cast<int64_t>(1 + random() % 40);
        const int64_t stop_after = random() % 3 ? count : random() % count + 1;
        if (random() % 5 == 0) {  // a failure, which must change nothing
          prompt.push_back(random() % 2 ? kFailingToken : kVocab);
          EXPECT_NE(generate(session, prompt, greedy_sampling(count)).status, INGOT_OK);
          continue;
        }
        int64_t seen = 0;
        const Generated made = generate(session, prompt, greedy_sampling(count),
                                        [&](int64_t) { return ++seen < stop_after; });
        EXPECT_TRUE(made.status == INGOT_OK || made.status == INGOT_CANCELLED);
        history = joined(history, prompt);
        EXPECT_EQ(made.tokens, greedy(history, stop_after));
        history = joined(history, made.tokens);
        EXPECT_EQ(ingot_session_length(session.get()), static_cast<int64_t>(history.size()));
      }
    });
  for (std::thread& caller : callers) caller.join();
}

}  // namespace
}  // namespace ingot::test

// Log-probabilities of given tokens: against those that follow from the toy model's rule.
#include <cmath>

#include "toy_package.h"

namespace ingot::test {
namespace {

using ScoreTest = PackageTest;

double log_probability(std::span<const int64_t> history, int64_t target) {
  const uint64_t state = hash(history);
  long double total = 0;
  for (int64_t v = 0; v < kVocab; v++) total += std::exp(static_cast<long double>(logit(state, v)));
  return static_cast<double>(logit(state, target) - std::log(total));
}

// What the session should say of `targets` after the last of `tokens`; `before` is in it already.
std::vector<double> expected(const std::vector<int64_t>& before, const std::vector<int64_t>& tokens,
                             const std::vector<int64_t>& targets) {
  const std::vector<int64_t> whole = joined(before, tokens);
  std::vector<double> scores;
  for (size_t i = 0; i < targets.size(); i++) {
    const size_t seen = whole.size() - targets.size() + i + 1;
    scores.push_back(log_probability(std::span(whole).first(seen), targets[i]));
  }
  return scores;
}

struct Scored {
  ingot_status status;
  std::vector<double> log_probs;
};

Scored score(const Session& session, const std::vector<int64_t>& tokens,
             const std::vector<int64_t>& targets) {
  std::vector<double> out(targets.size());
  const ingot_status status = ingot_session_score(session.get(), tokens.data(), tokens.size(),
                                                  targets.data(), targets.size(), out.data());
  return {status, out};
}

void expect_near(const std::vector<double>& found, const std::vector<double>& wanted) {
  ASSERT_EQ(found.size(), wanted.size());
  for (size_t i = 0; i < found.size(); i++) EXPECT_NEAR(found[i], wanted[i], 1e-12) << i;
}

// Around a step's logit rows (64) and its tokens (256): all scored, or the last of them.
TEST_F(ScoreTest, ScoresTheLastTokens) {
  const Package package = open();
  for (const auto& [count, scored] : std::vector<std::pair<int64_t, int64_t>>{
           {1, 1}, {64, 64}, {65, 65}, {129, 65}, {257, 1}, {300, 40}, {600, 300}, {640, 640}}) {
    const Session session = new_session(package);
    const std::vector<int64_t> tokens = prompt_of(count), targets = prompt_of(scored, 5);
    const Scored found = score(session, tokens, targets);
    ASSERT_EQ(found.status, INGOT_OK) << ingot_last_error();
    expect_near(found.log_probs, expected({}, tokens, targets));
    EXPECT_EQ(ingot_session_length(session.get()), count);
  }
}

TEST_F(ScoreTest, TheSessionsTokensAreContext) {
  const Package package = open();
  const Session session = new_session(package);
  const std::vector<int64_t> first = prompt_of(20), targets = prompt_of(8, 3);
  std::vector<int64_t> held = joined(first, generate(session, first, greedy_sampling(5)).tokens);
  for (int turn = 0; turn < 2; turn++) {  // the last token made is not in the cache yet
    const std::vector<int64_t> tokens = prompt_of(8, turn);
    expect_near(score(session, tokens, targets).log_probs, expected(held, tokens, targets));
    held = joined(held, tokens);
  }
}

TEST_F(ScoreTest, RefusesBadArgumentsAndStaysUsable) {
  const Package package = open();
  const Session session = new_session(package);
  const auto refused = [&](const std::vector<int64_t>& tokens, const std::vector<int64_t>& targets,
                           const char* word) {
    EXPECT_EQ(score(session, tokens, targets).status, INGOT_BAD_INPUT) << word;
    EXPECT_NE(std::string(ingot_last_error()).find(word), std::string::npos) << ingot_last_error();
  };
  refused({1, 2}, {kVocab}, "target 97 is out of range");
  refused({1, 2}, {-1}, "target -1 is out of range");
  refused({kVocab}, {1}, "token id 97 is out of range");
  refused({1, 2}, {}, "0 targets for 2 tokens");
  refused({1, 2}, {1, 2, 3}, "3 targets for 2 tokens");
  refused({}, {}, "0 targets for 0 tokens");
  refused(prompt_of(kMaxSeqLen + 1), {1}, "too long");
  EXPECT_EQ(ingot_session_length(session.get()), 0);
  expect_near(score(session, {1, 2}, {3}).log_probs, expected({}, {1, 2}, {3}));
}

TEST_F(ScoreTest, AFullCacheAndAFailureAreReported) {
  const Package small = open(toy_source(), 64);
  const Session session = new_session(small);
  EXPECT_EQ(score(session, prompt_of(65), {1}).status, INGOT_NO_SPACE);
  EXPECT_EQ(score(session, prompt_of(64), {1}).status, INGOT_OK) << ingot_last_error();
  const Session other = new_session(small);
  EXPECT_EQ(score(other, {1}, {1}).status, INGOT_NO_SPACE);
  ingot_session_reset(session.get());
  EXPECT_EQ(score(other, {1, kFailingToken}, {1}).status, INGOT_FAILED);
}

}  // namespace
}  // namespace ingot::test

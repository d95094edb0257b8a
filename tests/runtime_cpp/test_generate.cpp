// One session: what it generates, remembers, refuses.
#include <chrono>
#include <thread>

#include "toy_package.h"

namespace ingot::test {
namespace {

using GenerateTest = PackageTest;

TEST_F(GenerateTest, GreedyFollowsTheModel) {
  const Package package = open();
  const Session session = new_session(package);
  const std::vector<int64_t> prompt = {3, 1, 4};
  const Generated made = generate(session, prompt, greedy_sampling(40));
  ASSERT_EQ(made.status, INGOT_OK) << ingot_last_error();
  EXPECT_EQ(made.tokens, greedy(prompt, 40));
  EXPECT_EQ(made.stats.prompt_tokens, 3);
  EXPECT_EQ(made.stats.new_tokens, 40);
  EXPECT_GT(made.stats.prefill_seconds, 0);
  EXPECT_GT(made.stats.decode_seconds, 0);
}

// Around the block size (16) and the prompt chunk of a step (256).
TEST_F(GenerateTest, EveryPromptLength) {
  const Package package = open();
  for (const int64_t length : {1, 2, 15, 16, 17, 31, 32, 255, 256, 257, 513, 600}) {
    const Session session = new_session(package);
    const std::vector<int64_t> prompt = prompt_of(length);
    const Generated made = generate(session, prompt, greedy_sampling(20));
    ASSERT_EQ(made.status, INGOT_OK) << ingot_last_error();
    EXPECT_EQ(made.tokens, greedy(prompt, 20)) << length;
  }
}

TEST_F(GenerateTest, ASessionRemembersPromptsAndAnswers) {
  const Package package = open();
  const Session session = new_session(package);
  const std::vector<int64_t> first = {10, 11, 12}, second = {20, 21};
  const Generated one = generate(session, first, greedy_sampling(5));
  EXPECT_EQ(ingot_session_length(session.get()), 8);
  const Generated two = generate(session, second, greedy_sampling(5));
  EXPECT_EQ(two.tokens, greedy(joined(joined(first, one.tokens), second), 5));
  EXPECT_EQ(ingot_session_length(session.get()), 15);
}

TEST_F(GenerateTest, ResetForgets) {
  const Package package = open();
  const Session session = new_session(package);
  generate(session, {9, 9, 9}, greedy_sampling(5));
  ingot_session_reset(session.get());
  EXPECT_EQ(ingot_session_length(session.get()), 0);
  EXPECT_EQ(generate(session, {1, 2}, greedy_sampling(5)).tokens, greedy({1, 2}, 5));
}

TEST_F(GenerateTest, LogitsOfEveryToken) {
  const Package package = open();
  const Session session = new_session(package);
  const std::vector<int64_t> first = prompt_of(70), second = prompt_of(40, 3);
  std::vector<int64_t> history;
  for (const auto& tokens : {first, second}) {
    std::vector<float> logits(tokens.size() * kVocab);
    ASSERT_EQ(ingot_session_logits(session.get(), tokens.data(), tokens.size(), logits.data()),
              INGOT_OK)
        << ingot_last_error();
    for (size_t i = 0; i < tokens.size(); i++) {
      history.push_back(tokens[i]);
      for (int64_t v = 0; v < kVocab; v++) {
        ASSERT_EQ(logits[i * kVocab + v], logit(hash(history), v)) << "row " << i << ", " << v;
      }
    }
  }
}

TEST_F(GenerateTest, LogitsAfterGeneratingStartWithTheAnswersLastToken) {
  const Package package = open();
  const Session session = new_session(package);
  const std::vector<int64_t> prompt = {1, 2, 3};
  const Generated made = generate(session, prompt, greedy_sampling(4));
  const int64_t token = 50;
  std::vector<float> logits(kVocab);
  ASSERT_EQ(ingot_session_logits(session.get(), &token, 1, logits.data()), INGOT_OK);
  const uint64_t state = hash(joined(joined(prompt, made.tokens), {token}));
  for (int64_t v = 0; v < kVocab; v++) ASSERT_EQ(logits[v], logit(state, v)) << v;
}

// A prompt whose answer reaches the stop token soon, and after how many tokens.
std::pair<std::vector<int64_t>, size_t> stopping_prompt() {
  for (int64_t seed = 0;; seed++) {
    const std::vector<int64_t> prompt = prompt_of(3, seed), made = greedy(prompt, 30);
    const auto stop = std::find(made.begin(), made.end(), kStopToken);
    if (stop > made.begin() + 2 && stop != made.end()) return {prompt, stop - made.begin()};
  }
}

TEST_F(GenerateTest, AStopTokenEndsAndIsNotPartOfTheAnswer) {
  const Package package = open();
  const auto [prompt, count] = stopping_prompt();
  ingot_sampling sampling = greedy_sampling(30);
  sampling.ignore_eos = 0;
  const Session session = new_session(package);
  const Generated made = generate(session, prompt, sampling);
  EXPECT_EQ(made.tokens, greedy(prompt, static_cast<int64_t>(count)));
  EXPECT_EQ(made.stats.new_tokens, static_cast<int64_t>(count));
  EXPECT_EQ(ingot_session_length(session.get()), static_cast<int64_t>(prompt.size() + count));

  sampling.ignore_eos = 1;
  EXPECT_EQ(generate(new_session(package), prompt, sampling).tokens, greedy(prompt, 30));
}

TEST_F(GenerateTest, TheCallersStopTokensCountToo) {
  const Package package = open();
  const std::vector<int64_t> prompt = {8, 8}, all = greedy(prompt, 10);
  ingot_sampling sampling = greedy_sampling(10);
  sampling.ignore_eos = 0;
  sampling.stop_tokens = &all[4];
  sampling.stop_count = 1;
  const auto end = std::find_if(all.begin(), all.end(), [&](int64_t token) {
    return token == all[4] || token == kStopToken;
  });
  EXPECT_EQ(generate(new_session(package), prompt, sampling).tokens,
            std::vector<int64_t>(all.begin(), end));
}

TEST_F(GenerateTest, TheSeedDecidesWhatIsSampled) {
  const Package package = open();
  ingot_sampling sampling = greedy_sampling(30);
  sampling.temperature = 5;
  const auto tokens = [&](uint64_t seed) {
    sampling.seed = seed;
    return generate(new_session(package), {1}, sampling).tokens;
  };
  EXPECT_EQ(tokens(1), tokens(1));
  EXPECT_NE(tokens(1), tokens(2));
}

// Those that the callback did not see are not part of the session, however far the step thread has
// run ahead of a slow callback.
TEST_F(GenerateTest, ACancelledSessionHoldsWhatItsCallerSaw) {
  const Package package = open();
  const Session session = new_session(package);
  const std::vector<int64_t> prompt = {2, 7, 1};
  int seen = 0;
  const Generated made = generate(session, prompt, greedy_sampling(200), [&](int64_t) {
    std::this_thread::sleep_for(std::chrono::milliseconds(10));
    return ++seen < 3;
  });
  EXPECT_EQ(made.status, INGOT_CANCELLED);
  EXPECT_EQ(made.tokens, greedy(prompt, 3));
  EXPECT_EQ(ingot_session_length(session.get()), 6);
  EXPECT_EQ(generate(session, {4}, greedy_sampling(5)).tokens,
            greedy(joined(joined(prompt, made.tokens), {4}), 5));
}

TEST_F(GenerateTest, RefusesBadArgumentsAndStaysUsable) {
  const Package package = open();
  const Session session = new_session(package);
  const auto refused = [&](const std::vector<int64_t>& prompt, const ingot_sampling& sampling,
                           const char* word) {
    EXPECT_EQ(generate(session, prompt, sampling).status, INGOT_BAD_INPUT) << word;
    EXPECT_NE(std::string(ingot_last_error()).find(word), std::string::npos) << ingot_last_error();
  };
  refused({kVocab}, greedy_sampling(1), "97");
  refused({1, -1}, greedy_sampling(1), "-1");
  refused({}, greedy_sampling(1), "empty");
  refused({1}, greedy_sampling(0), "max_new_tokens");
  refused(prompt_of(kMaxSeqLen + 1), greedy_sampling(1), "too long");
  ingot_sampling sampling = greedy_sampling(1);
  sampling.temperature = -1;
  refused({1}, sampling, "temperature");
  sampling = greedy_sampling(1);
  sampling.top_p = 0;
  refused({1}, sampling, "top_p");
  sampling = greedy_sampling(1);
  sampling.top_k = -1;
  refused({1}, sampling, "top_k");
  EXPECT_EQ(ingot_session_length(session.get()), 0);
  EXPECT_EQ(generate(session, {1, 2}, greedy_sampling(5)).tokens, greedy({1, 2}, 5));
}

// The prompt and all that was asked for must fit, or nothing runs.
TEST_F(GenerateTest, RefusesAnAnswerThatCannotFit) {
  const Package package = open();
  const Session session = new_session(package);
  EXPECT_EQ(generate(session, prompt_of(kMaxSeqLen - 10), greedy_sampling(11)).status,
            INGOT_BAD_INPUT);
  EXPECT_EQ(generate(session, {1, 2}, greedy_sampling(INT64_MAX)).status, INGOT_BAD_INPUT);
  EXPECT_EQ(ingot_session_length(session.get()), 0);
  const std::vector<int64_t> prompt = prompt_of(kMaxSeqLen - 10);
  EXPECT_EQ(generate(session, prompt, greedy_sampling(10)).tokens, greedy(prompt, 10));
}

// A caller of another version has a smaller or larger struct.
TEST_F(GenerateTest, WritesNoMoreStatsThanTheCallerHas) {
  const Package package = open();
  const Session session = new_session(package);
  const ingot_sampling sampling = greedy_sampling(2);
  const int64_t token = 1;
  ingot_stats stats = {offsetof(ingot_stats, new_tokens), 0, -7, -7, -7};
  EXPECT_EQ(ingot_session_generate(session.get(), &token, 1, &sampling, nullptr, nullptr, &stats),
            INGOT_OK);
  EXPECT_EQ(stats.prompt_tokens, 1);
  EXPECT_EQ(stats.new_tokens, -7);
  stats.struct_bytes = sizeof stats + 1;
  EXPECT_EQ(ingot_session_generate(session.get(), &token, 1, &sampling, nullptr, nullptr, &stats),
            INGOT_BAD_INPUT);
}

TEST_F(GenerateTest, AFailureInsideTheModelIsReported) {
  const Package package = open();
  const Session session = new_session(package);
  EXPECT_EQ(generate(session, {1, kFailingToken}, greedy_sampling(1)).status, INGOT_FAILED);
  EXPECT_NE(std::string(ingot_last_error()).find("this token always fails"), std::string::npos)
      << ingot_last_error();
  EXPECT_EQ(generate(new_session(package), {1, 2}, greedy_sampling(5)).tokens, greedy({1, 2}, 5));
}

}  // namespace
}  // namespace ingot::test

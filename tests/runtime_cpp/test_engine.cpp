// How the engine cuts prompts into steps.
#include <gtest/gtest.h>
#include <ingot.h>

#include <chrono>
#include <functional>
#include <future>
#include <set>
#include <thread>
#include <vector>

#include "engine.h"

namespace ingot {
namespace {

constexpr int64_t kVocab = 2, kBlock = 16, kCacheTokens = 4096;

class EngineTest : public testing::Test {
 protected:
  // Notes how many tokens each sequence of a step has, and gives logits of zeros.
  Results note(const std::vector<Array>& inputs) {
    const auto* starts = static_cast<const int64_t*>(inputs[3].data);
    std::vector<int64_t>& counts = steps.emplace_back();
    for (int64_t i = 1; i < inputs[3].shape[0]; i++) counts.push_back(starts[i] - starts[i - 1]);
    if (during_first_step && steps.size() == 1) during_first_step();
    const std::vector<int64_t> shape = {inputs[7].shape[0], kVocab};
    std::vector<std::vector<char>> copies;
    copies.emplace_back(static_cast<size_t>(shape[0] * kVocab) * sizeof(float));
    std::vector<Array> arrays = {{copies[0].data(), INGOT_FLOAT32, shape}};
    return {std::move(arrays), std::move(copies)};
  }

  // Reads a prompt of so many tokens.
  void read(int64_t tokens) {
    Sequence sequence;
    Job job;
    job.sequence = &sequence;
    job.tokens.assign(static_cast<size_t>(tokens), 1);
    job.take_logits = [](const float*, int64_t) {};
    job.logit_rows = 1;
    engine.run(job, [](int64_t) { return true; });
    engine.release(sequence);
  }

  std::vector<std::vector<int64_t>> steps;
  std::function<void()> during_first_step;
  KvPool pool{1, kCacheTokens / kBlock + 1, 64};
  StepThread thread{1};
  Engine engine{[this](const std::vector<Array>& inputs) { return note(inputs); }, pool,
                EngineLimits{kVocab, kCacheTokens, kBlock, kCacheTokens, 256, 512, "toy"}, thread};
};

TEST_F(EngineTest, APromptAloneHasLongerSteps) {
  read(600);
  EXPECT_EQ(steps, (std::vector<std::vector<int64_t>>{{512}, {88}}));
}

// The second prompt comes during the first one's first step; how long until the engine has it, no
// one says.
TEST_F(EngineTest, PromptsSideBySideShareShorterSteps) {
  for (auto wait = std::chrono::milliseconds(5); wait.count() < 10'000; wait *= 2) {
    std::future<void> second;
    during_first_step = [&] {
      second = std::async(std::launch::async, [&] { read(300); });
      std::this_thread::sleep_for(wait);
    };
    steps.clear();
    read(600);
    second.get();
    if (steps[1].size() == 1) continue;
    ASSERT_EQ(steps.size(), 3u);
    EXPECT_EQ(steps[0], std::vector<int64_t>{512});
    EXPECT_EQ(std::multiset<int64_t>(steps[1].begin(), steps[1].end()),
              (std::multiset<int64_t>{88, 256 - 88}));
    EXPECT_EQ(steps[2], std::vector<int64_t>{300 - (256 - 88)});
    return;
  }
  FAIL() << "the prompts never shared a step";
}

}  // namespace
}  // namespace ingot

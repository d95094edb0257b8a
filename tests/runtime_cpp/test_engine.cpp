// How the engine cuts prompts into steps.
#include <gtest/gtest.h>
#include <ingot.h>

#include <algorithm>
#include <chrono>
#include <future>
#include <thread>

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
    if (steps.size() == 1) first_step.wait();
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
  std::shared_future<void> first_step;
  KvPool pool{1, kCacheTokens / kBlock + 1, 64};
  StepThread thread{1};
  Engine engine{[this](const std::vector<Array>& inputs) { return note(inputs); }, pool,
                EngineLimits{kVocab, kCacheTokens, kBlock, kCacheTokens, 256, 512, "toy"}, thread};
};

TEST_F(EngineTest, APromptAloneHasLongerSteps) {
  std::promise<void> go;
  first_step = go.get_future().share();
  go.set_value();
  read(600);
  EXPECT_EQ(steps, (std::vector<std::vector<int64_t>>{{512}, {88}}));
}

TEST_F(EngineTest, PromptsSideBySideShareShorterSteps) {
  std::promise<void> go;
  first_step = go.get_future().share();
  auto first = std::async(std::launch::async, [&] { read(600); });  // waits in its first step
  auto second = std::async(std::launch::async, [&] { read(300); });
  std::this_thread::sleep_for(std::chrono::milliseconds(50));
  go.set_value();
  first.get();
  second.get();
  int64_t read_in_all = 0;
  for (size_t i = 0; i < steps.size(); i++) {
    int64_t step = 0;
    for (const int64_t count : steps[i]) step += count;
    if (steps[i].size() > 1) {
      EXPECT_LE(step, 256 + 1);  // at least one token each
    }
    read_in_all += step;
  }
  EXPECT_EQ(read_in_all, 900);
  EXPECT_TRUE(std::any_of(steps.begin(), steps.end(), [](auto& step) { return step.size() > 1; }));
}

}  // namespace
}  // namespace ingot

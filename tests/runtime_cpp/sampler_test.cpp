#include "sampler.h"

#include <gtest/gtest.h>

#include <cmath>
#include <set>

namespace {
const std::vector<float> kLogits = {0.5f, 2.0f, -1.0f, 2.0f, 1.0f};

std::vector<int> counts(const ingot::SamplerSettings& settings, int draws) {
  ingot::Sampler sampler(settings);
  std::vector<int> found(kLogits.size());
  for (int i = 0; i < draws; i++) found[sampler.sample(kLogits.data(), kLogits.size())]++;
  return found;
}
}  // namespace

TEST(Sampler, GreedyTakesTheFirstOfTheLargest) {
  ingot::Sampler sampler({});
  EXPECT_EQ(sampler.sample(kLogits.data(), kLogits.size()), 1);
}

TEST(Sampler, DrawsFollowTheSoftmax) {
  constexpr int kDraws = 20000;
  const std::vector<int> found = counts({0.7f, 0, 1, 42}, kDraws);
  double total = 0;
  for (float logit : kLogits) total += std::exp(logit / 0.7);
  for (size_t i = 0; i < kLogits.size(); i++) {
    const double p = std::exp(kLogits[i] / 0.7) / total;
    EXPECT_NEAR(found[i], kDraws * p, 5 * std::sqrt(kDraws * p * (1 - p)) + 1) << "token " << i;
  }
}

TEST(Sampler, TopKKeepsTheLikeliest) {
  const std::vector<int> found = counts({1, 3, 1, 7}, 3000);
  EXPECT_EQ(found[0], 0);
  EXPECT_EQ(found[2], 0);
  EXPECT_GT(found[1], 0);
  EXPECT_GT(found[3], 0);
  EXPECT_GT(found[4], 0);
}

TEST(Sampler, TopPKeepsTheSmallestSetWithTheMass) {
  // Softmax: 0.083, 0.371, 0.018, 0.371, 0.137, so 0.7 of the mass needs tokens 1 and 3 alone.
  const std::vector<int> found = counts({1, 0, 0.7f, 7}, 3000);
  EXPECT_EQ(found[1] + found[3], 3000);
  EXPECT_GT(found[1], 0);
  EXPECT_GT(found[3], 0);
}

TEST(Sampler, SeedsDecide) {
  EXPECT_EQ(counts({1, 0, 1, 5}, 50), counts({1, 0, 1, 5}, 50));
  std::set<std::vector<int>> different;
  for (uint64_t seed = 0; seed < 8; seed++) different.insert(counts({1, 0, 1, seed}, 50));
  EXPECT_GT(different.size(), 4u);
}

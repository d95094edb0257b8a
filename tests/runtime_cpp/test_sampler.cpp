#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdint>
#include <limits>
#include <numeric>
#include <random>
#include <set>
#include <vector>

#include "sampler.h"

namespace ingot {
namespace {

constexpr int kDraws = 40000;

// How often each of `logits` is drawn.
std::vector<int> draw(const SamplerSettings& settings, const std::vector<float>& logits) {
  Sampler sampler(settings);
  std::vector<int> counts(logits.size());
  for (int i = 0; i < kDraws; i++) {
    counts.at(sampler.sample(logits.data(), static_cast<int64_t>(logits.size())))++;
  }
  return counts;
}

std::vector<float> log_of(std::vector<double> probabilities) {
  std::vector<float> logits;
  for (const double p : probabilities) logits.push_back(static_cast<float>(std::log(p)));
  return logits;
}

// Five standard deviations of a binomial count: a right sampler fails once in a million runs, and
// the seed is fixed.
void expect_distribution(const std::vector<int>& counts, const std::vector<double>& expected) {
  for (size_t i = 0; i < counts.size(); i++) {
    const double mean = expected[i] * kDraws;
    EXPECT_NEAR(counts[i], mean, 5 * std::sqrt(mean * (1 - expected[i]))) << "token " << i;
  }
}

TEST(Sampler, GreedyTakesTheFirstOfTheLargest) {
  Sampler sampler({});
  const std::array<float, 5> logits = {-1, 3, 2, 3, -7};
  EXPECT_EQ(sampler.sample(logits.data(), 5), 1);
  const float one = -5;
  EXPECT_EQ(sampler.sample(&one, 1), 0);
}

// At the ends of what is searched at once, too.
TEST(Sampler, GreedyFindsTheLargestWhereverItIs) {
  Sampler sampler({});
  for (const int64_t size : {1, 2, 15, 16, 17, 1023, 1024, 1025, 2047, 2049, 5000}) {
    std::vector<float> logits(static_cast<size_t>(size), -3);
    for (int64_t at = 0; at < size; at += at % 16 < 14 ? 1 : size / 50 + 1) {
      logits[at] = -2;
      ASSERT_EQ(sampler.sample(logits.data(), size), at) << size;
      logits[size - 1] = -2;  // as large, and last
      ASSERT_EQ(sampler.sample(logits.data(), size), at) << size;
      logits[at] = logits[size - 1] = -3;
    }
  }
}

TEST(Sampler, NaNIsNeverDrawn) {
  const float nan = std::numeric_limits<float>::quiet_NaN();
  const float never = -std::numeric_limits<float>::infinity();
  for (const SamplerSettings& settings :
       {SamplerSettings{}, SamplerSettings{.temperature = 1},
        SamplerSettings{.temperature = 1, .top_p = 0.9f},
        SamplerSettings{.temperature = 1, .top_k = 2, .top_p = 0.9f}}) {
    EXPECT_EQ(draw(settings, {nan, -5, nan, never})[1], kDraws);
    EXPECT_EQ(draw(settings, {nan, nan, nan})[0], kDraws);
    EXPECT_EQ(draw(settings, {never, never})[0], kDraws);
    EXPECT_EQ(draw(settings, {1, -never, 2})[1], kDraws);
  }
}

TEST(Sampler, DrawsBySoftmax) {
  const std::vector<double> p = {0.5, 0.25, 0.15, 0.1};
  expect_distribution(draw({.temperature = 1, .seed = 1}, log_of(p)), p);
}

TEST(Sampler, TemperatureDividesTheLogits) {
  // p^(1/T), normalised: at T = 0.5 the squares.
  const std::vector<double> p = {0.6, 0.3, 0.1};
  const double sum = 0.36 + 0.09 + 0.01;
  expect_distribution(draw({.temperature = 0.5, .seed = 2}, log_of(p)),
                      {0.36 / sum, 0.09 / sum, 0.01 / sum});
}

TEST(Sampler, TopKKeepsTheLikeliestAndTheFirstOfEquals) {
  const std::vector<float> logits = log_of({0.1, 0.2, 0.4, 0.2, 0.1});
  expect_distribution(draw({.temperature = 1, .top_k = 2, .seed = 3}, logits),
                      {0, 1.0 / 3, 2.0 / 3, 0, 0});
  EXPECT_EQ(draw({.temperature = 5, .top_k = 1, .seed = 3}, logits)[2], kDraws);
}

TEST(Sampler, TopPKeepsTheSmallestSetThatHoldsTheMass) {
  const std::vector<float> logits = log_of({0.1, 0.5, 0.3, 0.1});
  expect_distribution(draw({.temperature = 1, .top_p = 0.7f, .seed = 4}, logits),
                      {0, 5.0 / 8, 3.0 / 8, 0});
  EXPECT_EQ(draw({.temperature = 1, .top_p = 1e-6f, .seed = 4}, logits)[1], kDraws);
}

TEST(Sampler, TopPCountsTheMassLeftByTopK) {
  // After top_k = 2 the masses are 0.625 and 0.375: 0.6 of it is held by the first alone, although
  // the first has only 0.5 of the whole.
  const std::vector<float> logits = log_of({0.1, 0.5, 0.3, 0.1});
  EXPECT_EQ(draw({.temperature = 1, .top_k = 2, .top_p = 0.6f, .seed = 5}, logits)[1], kDraws);
}

// Against sorting all there are: no other tokens, of vocabularies whose likeliest hold much and
// little of the mass, many of them alike; and the share that each has of the set.
TEST(Sampler, TopPIsThatOfASortedVocabulary) {
  std::mt19937 random(6);
  std::normal_distribution<float> normal;
  for (int vocabulary = 0; vocabulary < 40; vocabulary++) {
    const float spread = std::exp2(static_cast<float>(vocabulary % 6) - 2);
    std::vector<float> logits(1 + random() % 3000);
    for (float& logit : logits) logit = std::round(normal(random) * spread * 8) / 8;
    const float top_p = std::array{0.1f, 0.5f, 0.9f, 0.999999f}[vocabulary % 4];
    std::vector<size_t> order(logits.size());
    std::iota(order.begin(), order.end(), size_t{0});
    std::stable_sort(order.begin(), order.end(),
                     [&](size_t a, size_t b) { return logits[a] > logits[b]; });
    double total = 0, held = 0;
    for (const float logit : logits) total += std::exp(double{logit});
    size_t count = 0;
    while (held < double{top_p} * total) held += std::exp(double{logits[order[count++]]});
    const std::set<size_t> nucleus(order.begin(), order.begin() + static_cast<long>(count));
    Sampler sampler({.temperature = 1, .top_p = top_p, .seed = 7});
    std::set<size_t> drawn;
    for (int i = 0; i < 400; i++)
      drawn.insert(
          static_cast<size_t>(sampler.sample(logits.data(), static_cast<int64_t>(logits.size()))));
    for (const size_t token : drawn) ASSERT_TRUE(nucleus.count(token)) << vocabulary;
    if (vocabulary % 10 != 0) continue;
    std::vector<double> expected(logits.size());
    for (size_t i = 0; i < count; i++)
      expected[order[i]] = std::exp(double{logits[order[i]]}) / held;
    expect_distribution(draw({.temperature = 1, .top_p = top_p, .seed = 8}, logits), expected);
  }
}

TEST(Sampler, TheSeedDecidesTheTokens) {
  std::vector<float> logits(100);
  std::iota(logits.begin(), logits.end(), 0.0f);
  const auto tokens = [&](uint64_t seed) {
    Sampler sampler({.temperature = 30, .seed = seed});
    std::vector<int64_t> drawn;
    for (int i = 0; i < 50; i++) drawn.push_back(sampler.sample(logits.data(), 100));
    return drawn;
  };
  EXPECT_EQ(tokens(7), tokens(7));
  EXPECT_NE(tokens(7), tokens(8));
}

TEST(Sampler, MaskedTokensAreNeverDrawn) {
  const float never = -std::numeric_limits<float>::infinity();
  const std::vector<int> counts = draw({.temperature = 1, .seed = 9}, {never, 0, never, 0});
  EXPECT_EQ(counts[0] + counts[2], 0);
  EXPECT_GT(counts[1], 0);
  EXPECT_GT(counts[3], 0);
}

TEST(Sampler, LargeLogitsDoNotOverflow) {
  EXPECT_EQ(draw({.temperature = 0.01f, .seed = 9}, {3e4f, -3e4f, 2e4f})[0], kDraws);
}

}  // namespace
}  // namespace ingot

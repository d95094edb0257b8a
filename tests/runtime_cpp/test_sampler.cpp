#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdint>
#include <limits>
#include <numeric>
#include <random>
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

// Logits in eighths, so that many are alike, and their tokens, the likeliest first.
struct Vocabulary {
  std::vector<float> logits;
  std::vector<size_t> order;

  Vocabulary(std::mt19937& random, float spread) : logits(1 + random() % 9000) {
    std::normal_distribution<float> normal;
    for (float& logit : logits) logit = std::round(normal(random) * spread * 8) / 8;
    order.resize(logits.size());
    std::iota(order.begin(), order.end(), size_t{0});
    std::sort(order.begin(), order.end(), [&](size_t a, size_t b) {
      return logits[a] > logits[b] || (logits[a] == logits[b] && a < b);
    });
  }

  double mass(size_t token, float temperature) const {
    return std::exp(logits[token] / double{temperature});
  }

  // Draws are from the `count` likeliest, and those that are likely enough are drawn.
  void expect_the_likeliest(const SamplerSettings& settings, size_t count) const {
    Sampler sampler(settings);
    std::vector<int> draws(logits.size());
    for (int i = 0; i < 1200; i++)
      draws.at(sampler.sample(logits.data(), static_cast<int64_t>(logits.size())))++;
    double held = 0;
    for (size_t i = 0; i < count; i++) held += mass(order[i], settings.temperature);
    for (size_t i = 0; i < order.size(); i++) {
      if (i >= count) {
        ASSERT_EQ(draws[order[i]], 0) << i << " of " << count;
      } else if (mass(order[i], settings.temperature) > 0.015 * held) {
        ASSERT_GT(draws[order[i]], 0) << i << " of " << count;
      }
    }
  }
};

TEST(Sampler, TopPIsThatOfASortedVocabulary) {
  std::mt19937 random(6);
  for (int i = 0; i < 24; i++) {
    const Vocabulary vocabulary(random, 1);
    const float top_p = std::array{0.1f, 0.5f, 0.9f, 0.999999f}[i % 4];
    const float temperature = std::exp2(static_cast<float>(i % 6) - 4);
    double total = 0, held = 0;
    for (size_t token = 0; token < vocabulary.logits.size(); token++)
      total += vocabulary.mass(token, temperature);
    size_t count = 0;
    while (held < double{top_p} * total)
      held += vocabulary.mass(vocabulary.order[count++], temperature);
    vocabulary.expect_the_likeliest({.temperature = temperature, .top_p = top_p, .seed = 7}, count);
  }
}

TEST(Sampler, TopKIsThatOfASortedVocabulary) {
  std::mt19937 random(7);
  for (const int32_t top_k : {1, 2, 5, 10, 20, 31, 50, 1000, 100000}) {
    const Vocabulary vocabulary(random, 1);
    const size_t count = std::min(static_cast<size_t>(top_k), vocabulary.logits.size());
    vocabulary.expect_the_likeliest({.temperature = 50, .top_k = top_k, .seed = 8}, count);
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

#include "sampler.h"

#include <algorithm>
#include <cmath>
#include <functional>
#include <numeric>

#include "largest.h"

namespace ingot {
// SplitMix64 (Steele, Lea and Flood 2014), the upper 53 bits as a double in [0, 1).
double Sampler::uniform() {
  uint64_t z = state_ += 0x9e3779b97f4a7c15;
  z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9;
  z = (z ^ z >> 27) * 0x94d049bb133111eb;
  return static_cast<double>((z ^ z >> 31) >> 11) * 0x1p-53;
}

bool Sampler::is_likelier(const Candidate& a, const Candidate& b) {
  return a.logit > b.logit || (a.logit == b.logit && a.token < b.token);
}

// Sets the largest logit of each block; returns where the first of the largest is, 0 if none is
// larger than -infinity.
int64_t Sampler::first_largest(const float* logits, int64_t vocab_size) {
  maxima_.clear();
  for (int64_t begin = 0; begin < vocab_size; begin += kBlock)
    maxima_.push_back(largest_of(logits + begin, std::min(kBlock, vocab_size - begin)));
  const auto block = std::max_element(maxima_.begin(), maxima_.end());
  if (*block == kNever) return 0;
  return std::find(logits + (block - maxima_.begin()) * kBlock, logits + vocab_size, *block) -
         logits;
}

// All tokens, or the top_k likeliest in order. No less likely than the top_k-th largest of the
// blocks' maxima are at least as many, which lie in few blocks.
void Sampler::take_candidates(const float* logits, int64_t vocab_size) {
  const bool cut = settings_.top_k > 0 && settings_.top_k < vocab_size;
  float least = kNever;
  if (cut && settings_.top_k <= static_cast<int64_t>(maxima_.size())) {
    likeliest_maxima_ = maxima_;
    const auto last = likeliest_maxima_.begin() + settings_.top_k - 1;
    std::nth_element(likeliest_maxima_.begin(), last, likeliest_maxima_.end(), std::greater<>());
    least = *last;
  }
  candidates_.clear();
  for (size_t block = 0; block < maxima_.size(); block++) {
    if (maxima_[block] < least) continue;
    const int64_t begin = static_cast<int64_t>(block) * kBlock;
    for (int64_t i = begin; i < std::min(begin + kBlock, vocab_size); i++)
      if (logits[i] >= least) candidates_.push_back({0, logits[i], static_cast<int32_t>(i)});
  }
  if (!cut) return;
  const auto end =
      candidates_.begin() + std::min<int64_t>(settings_.top_k, std::ssize(candidates_));
  std::partial_sort(candidates_.begin(), end, candidates_.end(), is_likelier);
  candidates_.erase(end, candidates_.end());
}

// Sets the candidates' masses; returns their sum.
double Sampler::weigh(float largest) {
  double total = 0;
  for (Candidate& c : candidates_)
    total += c.mass = std::exp((c.logit - largest) / double{settings_.temperature});
  return total;
}

// Keeps the smallest set of the likeliest that holds top_p of the mass; returns what it holds. Most
// tokens are too light to be in it, were there even as many of each, and of the others those that
// are not are found by halves (Hoare 1961, "Find"): the set alone is sorted.
double Sampler::cut_to_nucleus(double total) {
  const double wanted = settings_.top_p * total;
  const auto add = [](double sum, const Candidate& c) { return sum + c.mass; };
  const double light = (total - wanted) / (2 * static_cast<double>(candidates_.size()));
  std::erase_if(candidates_, [&](const Candidate& c) { return c.mass < light; });
  auto begin = candidates_.begin(), end = candidates_.end();
  for (double before = 0; end - begin > 1;) {  // the set ends in [begin, end)
    const auto middle = begin + (end - begin) / 2;
    std::nth_element(begin, middle, end, is_likelier);
    const double held = std::accumulate(begin, middle, before, add);
    if (held >= wanted) {
      end = middle;
    } else {
      before = held;
      begin = middle;
    }
  }
  candidates_.erase(end, candidates_.end());
  std::sort(candidates_.begin(), candidates_.end(), is_likelier);
  return std::accumulate(candidates_.begin(), candidates_.end(), 0.0, add);
}

int64_t Sampler::sample(const float* logits, int64_t vocab_size) {
  const int64_t likeliest = first_largest(logits, vocab_size);
  const float largest = logits[likeliest];
  if (settings_.temperature <= 0 || !std::isfinite(largest)) return likeliest;
  take_candidates(logits, vocab_size);
  double total = weigh(largest);
  if (settings_.top_p < 1) total = cut_to_nucleus(total);
  double left = uniform() * total;
  for (const Candidate& c : candidates_)
    if ((left -= c.mass) < 0) return c.token;
  return candidates_.back().token;
}
}  // namespace ingot

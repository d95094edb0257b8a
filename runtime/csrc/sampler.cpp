#include "sampler.h"

#include <algorithm>
#include <cmath>

namespace ingot {
// SplitMix64 (Steele, Lea and Flood 2014), the upper 53 bits as a double in [0, 1).
double Sampler::uniform() {
  uint64_t z = state_ += 0x9e3779b97f4a7c15;
  z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9;
  z = (z ^ z >> 27) * 0x94d049bb133111eb;
  return static_cast<double>((z ^ z >> 31) >> 11) * 0x1p-53;
}

int64_t Sampler::sample(const float* logits, int64_t vocab_size) {
  if (settings_.temperature <= 0) return std::max_element(logits, logits + vocab_size) - logits;
  candidates_.resize(vocab_size);
  for (int64_t i = 0; i < vocab_size; i++) candidates_[i] = {logits[i], i};
  const auto likelier = [](const Candidate& a, const Candidate& b) {
    return a.logit > b.logit || (a.logit == b.logit && a.token < b.token);
  };
  const bool cut = settings_.top_k > 0 && settings_.top_k < vocab_size;
  const int64_t kept = cut ? settings_.top_k : vocab_size;
  if (cut || settings_.top_p < 1)
    std::partial_sort(candidates_.begin(), candidates_.begin() + kept, candidates_.end(), likelier);
  candidates_.resize(kept);

  float largest = candidates_[0].logit;
  for (const Candidate& c : candidates_) largest = std::max(largest, c.logit);
  double total = 0;
  std::vector<double> mass(kept);
  for (int64_t i = 0; i < kept; i++)
    total += mass[i] = std::exp((candidates_[i].logit - largest) / double{settings_.temperature});
  if (settings_.top_p < 1) {  // the smallest set of the likeliest that holds top_p of the mass
    double held = 0;
    int64_t i = 0;
    while (i < kept && held < settings_.top_p * total) held += mass[i++];
    mass.resize(std::max<int64_t>(i, 1));
    total = i ? held : mass[0];
  }
  double left = uniform() * total;
  for (size_t i = 0; i < mass.size(); i++)
    if ((left -= mass[i]) < 0) return candidates_[i].token;
  return candidates_[mass.size() - 1].token;
}
}  // namespace ingot

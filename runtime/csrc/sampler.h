// From logits to a token. The same logits, settings and seed give the same tokens on every machine.
#pragma once
#include <cstdint>
#include <vector>

namespace ingot {
struct SamplerSettings {
  float temperature = 0;  // 0: the largest logit, the first of equals
  int32_t top_k = 0;      // 0: off
  float top_p = 1;        // 1: off; nucleus sampling (Holtzman et al. 2020)
  uint64_t seed = 0;
};

class Sampler {
 public:
  explicit Sampler(const SamplerSettings& settings) : settings_(settings), state_(settings.seed) {}
  int64_t sample(const float* logits, int64_t vocab_size);

 private:
  static constexpr int64_t kBlock = 256;
  struct Candidate {
    double mass;  // not normalised
    float logit;
    int32_t token;
  };
  static bool is_likelier(const Candidate& a, const Candidate& b);

  double uniform();
  int64_t first_largest(const float* logits, int64_t vocab_size);
  void take_candidates(const float* logits, int64_t vocab_size);
  double weigh(float largest);
  double cut_to_nucleus(double total);

  SamplerSettings settings_;
  uint64_t state_;
  std::vector<float> maxima_, likeliest_maxima_;  // of blocks
  std::vector<Candidate> candidates_;
};
}  // namespace ingot

// How likely a model thinks the tokens that came: what perplexity is made of.
#pragma once
#include <cstdint>

namespace ingot {
// The natural logarithm of softmax(logits[r])[targets[r]] of each row r, summed in float64 after
// the largest logit is taken off. logits float32 [rows, vocab_size], log_probs float64 [rows].
void log_probabilities(const float* logits, int64_t rows, int64_t vocab_size,
                       const int64_t* targets, double* log_probs);
}  // namespace ingot

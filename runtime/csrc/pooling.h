// How an encoder's hidden states become one vector a sequence, as the manifest says.
#pragma once
#include <cstdint>

namespace ingot {
enum class Pooling { mean, cls, max, mean_sqrt_len };

struct Embedding {
  Pooling pooling;
  bool normalize;
  int64_t max_tokens;  // of a sequence
  int64_t hidden_size, vocab_size;
};
}  // namespace ingot

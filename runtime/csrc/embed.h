// Sentence embeddings: an encoder's hidden states pooled over each sequence.
#pragma once
#include <cstddef>
#include <cstdint>

#include "graph.h"
#include "pooling.h"

namespace ingot {
// tokens of `count` sequences one after the other, `lengths` of each; writes float32 [count,
// hidden_size]. Throws Error, before anything is computed if a token or a length does not fit.
void embed(const Embedding& how, const RunGraph& run, const int64_t* tokens, const size_t* lengths,
           size_t count, float* embeddings);
}  // namespace ingot

#include "embed.h"

#include <algorithm>
#include <cmath>

#include "error.h"

namespace ingot {
namespace {
constexpr int64_t kStepTokens = 4096;  // of all sequences in one run: bounds temporaries
constexpr int32_t kInt64 = 4, kFloat32 = 6;

void check(const Embedding& how, const int64_t* tokens, const size_t* lengths, size_t count) {
  for (size_t i = 0; i < count; i++) {
    if (lengths[i] < 1 || lengths[i] > static_cast<size_t>(how.max_tokens))
      bad_input("text " + std::to_string(i) + " has " + std::to_string(lengths[i]) +
                " tokens, where the package takes 1 to " + std::to_string(how.max_tokens));
    for (size_t t = 0; t < lengths[i]; t++, tokens++)
      if (*tokens < 0 || *tokens >= how.vocab_size)
        bad_input("token id " + std::to_string(*tokens) +
                  " is out of range; the model has ids 0 to " + std::to_string(how.vocab_size - 1));
  }
}

// hidden [length, size] to one row.
void pool(const Embedding& how, const float* hidden, int64_t length, float* out) {
  const int64_t size = how.hidden_size;
  if (how.pooling == Pooling::cls) {
    std::copy(hidden, hidden + size, out);
  } else {
    const bool is_max = how.pooling == Pooling::max;
    std::vector<double> total(hidden, hidden + size);
    for (int64_t t = 1; t < length; t++)
      for (int64_t h = 0; h < size; h++) {
        const double value = hidden[t * size + h];
        total[h] = is_max ? std::max(total[h], value) : total[h] + value;
      }
    const double divisor = is_max                         ? 1.0
                           : how.pooling == Pooling::mean ? static_cast<double>(length)
                                                          : std::sqrt(double(length));
    for (int64_t h = 0; h < size; h++) out[h] = static_cast<float>(total[h] / divisor);
  }
  if (!how.normalize) return;
  double squares = 0;
  for (int64_t h = 0; h < size; h++) squares += double{out[h]} * out[h];
  const double norm = std::max(std::sqrt(squares), 1e-12);
  for (int64_t h = 0; h < size; h++) out[h] = static_cast<float>(out[h] / norm);
}

// Whole sequences, and their graph's inputs.
struct Batch {
  std::vector<int64_t> tokens, types, positions, query_start{0};

  void add(const int64_t* sequence, int64_t length) {
    tokens.insert(tokens.end(), sequence, sequence + length);
    for (int64_t i = 0; i < length; i++) positions.push_back(i);
    types.resize(tokens.size());
    query_start.push_back(static_cast<int64_t>(tokens.size()));
  }
  std::vector<Array> inputs() {
    const int64_t total = static_cast<int64_t>(tokens.size());
    return {{tokens.data(), kInt64, {total}},
            {types.data(), kInt64, {total}},
            {positions.data(), kInt64, {total}},
            {query_start.data(), kInt64, {static_cast<int64_t>(query_start.size())}}};
  }
};
}  // namespace

void embed(const Embedding& how, const RunGraph& run, const int64_t* tokens, const size_t* lengths,
           size_t count, float* embeddings) {
  check(how, tokens, lengths, count);
  for (size_t next = 0; next < count;) {
    Batch batch;
    do {
      const int64_t length = static_cast<int64_t>(lengths[next++]);
      batch.add(tokens, length);
      tokens += length;
    } while (next < count &&
             batch.query_start.back() + static_cast<int64_t>(lengths[next]) <= kStepTokens);
    const Results results = run(batch.inputs());
    const Array hidden = results.array(0);
    if (hidden.scalar_type != kFloat32 ||
        hidden.shape != std::vector<int64_t>{batch.query_start.back(), how.hidden_size})
      throw Error(INGOT_FAILED, "generated code gave hidden states of an unexpected size");
    for (size_t b = 0; b + 1 < batch.query_start.size(); b++) {
      const int64_t begin = batch.query_start[b];
      pool(how, static_cast<const float*>(hidden.data) + begin * how.hidden_size,
           batch.query_start[b + 1] - begin, embeddings);
      embeddings += how.hidden_size;
    }
  }
}
}  // namespace ingot

// One step of the toy model on plain arrays: it keeps tokens in the KV cache, answers by
// toy_rule.h, and refuses any step whose inputs contradict each other.
#pragma once

#include <set>
#include <stdexcept>
#include <string>
#include <vector>

#include "toy_rule.h"

namespace ingot::test {

inline void require(bool condition, const std::string& what) {
  if (!condition) throw std::runtime_error("toy model: " + what);
}

struct Ints {
  int64_t* data;
  int64_t sizes[2];
};

// The graph's inputs, in its order. Copied as it is to where the step runs.
struct StepArrays {
  Ints tokens, positions, slots, query_start, seq_lens, context_lens, block_table, rows;
  Ints first_cache, last_cache;

  int64_t sequence_of(int64_t token) const {
    int64_t b = 0;
    while (query_start.data[b + 1] <= token) b++;
    return b;
  }
  int64_t slot(int64_t sequence, int64_t position) const {
    const int64_t column = position / kBlockSize;
    require(column < block_table.sizes[1], "a block table is too narrow");
    const int64_t block = block_table.data[sequence * block_table.sizes[1] + column];
    require(block >= 0 && block < last_cache.sizes[0], "a block does not exist");
    return block * kBlockSize + position % kBlockSize;
  }
  // Tokens that are somebody's; the others are padding.
  int64_t count() const { return query_start.data[seq_lens.sizes[0]]; }
};

// What can be said without looking into the arrays.
inline void check_sizes(const StepArrays& step) {
  const int64_t total = step.tokens.sizes[0], sequences = step.seq_lens.sizes[0];
  require(total >= 1 && sequences >= 1 && step.rows.sizes[0] >= 1, "an empty step");
  require(step.positions.sizes[0] == total && step.slots.sizes[0] == total, "T differs");
  require(step.query_start.sizes[0] == sequences + 1 && step.block_table.sizes[0] == sequences,
          "B differs");
  require(step.last_cache.sizes[1] == kBytesPerBlock, "kv_cache has another block size");
}

inline void check_sequence(const StepArrays& step, int64_t b, std::set<int64_t>& written) {
  const int64_t begin = step.query_start.data[b], end = step.query_start.data[b + 1];
  require(begin < end, "a sequence without tokens");
  require(step.context_lens.data[b] >= step.seq_lens.data[b], "a context ends too soon");
  for (int64_t i = begin; i < end; i++) {
    const int64_t position = step.seq_lens.data[b] - (end - i);
    require(step.positions.data[i] == position, "a position is wrong");
    require(step.slots.data[i] == step.slot(b, position), "a slot is not its position's");
    require(written.insert(step.slots.data[i]).second, "a slot is written twice");
    require(step.tokens.data[i] >= 0 && step.tokens.data[i] < kVocab, "a token is out of range");
    require(step.tokens.data[i] != kFailingToken, "this token always fails");
  }
}

// `may_pad`: with sequences of length 0 and tokens of nobody, at the end.
inline void check_values(const StepArrays& step, bool may_pad) {
  const int64_t total = step.tokens.sizes[0], sequences = step.seq_lens.sizes[0];
  require(
      step.query_start.data[0] == 0 && step.count() <= total && (may_pad || step.count() == total),
      "query_start does not cover the tokens");
  std::set<int64_t> written;
  for (int64_t b = 0; b < sequences; b++) {
    if (may_pad && step.seq_lens.data[b] == 0)
      require(step.query_start.data[b] == step.count(), "padding has tokens");
    else
      check_sequence(step, b, written);
  }
  for (int64_t i = step.count(); i < total; i++)
    require(step.slots.data[i] == -1, "padding has a slot");
  for (int64_t r = 0; r < step.rows.sizes[0]; r++)
    require(step.rows.data[r] >= 0 && step.rows.data[r] < total, "a logit row does not exist");
}

inline void write_cache(const StepArrays& step) {
  for (int64_t i = 0; i < step.count(); i++) {
    step.first_cache.data[step.slots.data[i]] = step.tokens.data[i];
    step.last_cache.data[step.slots.data[i]] = step.tokens.data[i];
  }
}

// logits [R, kVocab].
inline void compute_logits(const StepArrays& step, float salt, float* logits) {
  for (int64_t r = 0; r < step.rows.sizes[0]; r++) {
    const int64_t token = step.rows.data[r], sequence = step.sequence_of(token);
    std::vector<int64_t> history;
    for (int64_t p = 0; p <= step.positions.data[token]; p++)
      history.push_back(step.last_cache.data[step.slot(sequence, p)]);
    const uint64_t state = hash(history);
    for (int64_t v = 0; v < kVocab; v++) logits[r * kVocab + v] = logit(state, v) - kSalt + salt;
  }
}

}  // namespace ingot::test

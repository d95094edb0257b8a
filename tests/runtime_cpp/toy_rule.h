// What the toy model computes, for the model and for the tests that predict it: the next token is a
// hash of every token before it, so that one wrong position, block, slot or neighbour changes the
// answer.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

namespace ingot::test {

inline constexpr int64_t kVocab = 97;
inline constexpr int64_t kLayers = 2;
inline constexpr int64_t kBlockSize = 16;
inline constexpr int64_t kBytesPerBlock = kBlockSize * 8;  // one int64 token a slot
inline constexpr int64_t kFailingToken = 96;  // the model reports an error when it is fed
// Prompts of one such token make the model forget a tensor, or make a NaN.
inline constexpr int64_t kLeakingToken = 95, kNanToken = 94;
inline constexpr float kSalt = 0.25f;  // the value of the one constant

inline uint64_t mix(uint64_t state, int64_t token) {
  uint64_t z = state * 0x9e3779b97f4a7c15 + static_cast<uint64_t>(token) + 1;
  z = (z ^ z >> 29) * 0xbf58476d1ce4e5b9;
  return z ^ z >> 32;
}

inline uint64_t hash(std::span<const int64_t> history) {
  uint64_t state = 0;
  for (const int64_t token : history) state = mix(state, token);
  return state;
}

// The token that `history` makes likeliest. Never kFailingToken.
inline int64_t next_token(std::span<const int64_t> history) {
  return static_cast<int64_t>(hash(history) % (kVocab - 1));
}

inline float logit(uint64_t state, int64_t token) {
  if (token == static_cast<int64_t>(state % (kVocab - 1))) return 10 + kSalt;
  return static_cast<float>(mix(state, token) % 1000) / 100 - 5 + kSalt;
}

inline std::vector<int64_t> greedy(std::vector<int64_t> history, int64_t count) {
  std::vector<int64_t> made;
  for (int64_t i = 0; i < count; i++) {
    made.push_back(next_token(history));
    history.push_back(made.back());
  }
  return made;
}

}  // namespace ingot::test

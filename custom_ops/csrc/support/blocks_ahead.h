// Fetching the cache's blocks of the next step while this one is computed.
#pragma once

#include "kv_block.h"

namespace ingot::INGOT_LEVEL {
namespace {

constexpr int kStepBlocks = 4;
constexpr int kFetchEvery = 4;  // dimensions of keys, tokens of values, maxima of rows

// The blocks of the next step, fetched from memory in shares between what this one computes,
// evenly: the CPU drops prefetches for which it has no buffer. Each block lies in pages of its own,
// where the hardware fetches on what follows a few lines in order: it does so in all of them at
// once where their lines are fetched side by side.
class Ahead {
 public:
  Ahead() = default;
  explicit Ahead(int64_t shares) : shares_(shares) {}

  template <typename T>
  void add(const BlockView<T>& block) {
    if (block.ahead == nullptr) return;
    const char* end = reinterpret_cast<const char*>(block.v + kBlock * block.v_stride);
    bytes_ = (end - start_of(block) + kLine - 1) / kLine * kLine;
    for (int b = count_++; b < kStepBlocks; b++) blocks_[b] = block.ahead;
  }

  // Fetches the next share, into L1 too.
  void fetch() {
    if (next_ == bytes_) return;
    due_ += bytes_;
    for (; due_ >= shares_ * kLine && next_ < bytes_; next_ += kLine, due_ -= shares_ * kLine) {
#pragma GCC unroll 4
      for (int b = 0; b < kStepBlocks; b++) {
        __builtin_prefetch(blocks_[b] + next_);
      }
    }
  }

  // Reads all of them, which the CPU cannot drop. Another thread may be writing there.
  void load() {
    for (; next_ < bytes_; next_ += kLine) {
      for (int b = 0; b < kStepBlocks; b++)
        __asm__ volatile("testb $0, %0" : : "m"(blocks_[b][next_]) : "cc");
    }
  }

 private:
  static constexpr int64_t kLine = 64;

  const char* blocks_[kStepBlocks];  // the last fills up what is not there
  int count_ = 0;
  int64_t shares_ = 1, bytes_ = 0;  // of a block, whole lines
  int64_t next_ = 0;                // byte of each block
  int64_t due_ = 0;                 // bytes that are due and not fetched, times shares_
};

}  // namespace
}  // namespace ingot::INGOT_LEVEL

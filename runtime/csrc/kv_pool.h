// The KV cache: per layer one opaque tensor of blocks of 16 tokens, shared by all sessions of a
// package.
#pragma once
#include <cstdint>
#include <span>
#include <vector>

#include "graph.h"

namespace ingot {
class KvPool {
 public:
  // Address space only; memory is committed as blocks are written. Throws Error(INGOT_NO_SPACE).
  KvPool(int64_t num_layers, int64_t num_blocks, int64_t bytes_per_block);
  // In a GPU's memory of `bytes_of` bytes, which outlives it.
  KvPool(int64_t num_layers, int64_t num_blocks, int64_t bytes_per_block, char* gpu_memory);
  // Throws Error(INGOT_NO_SPACE) where the product is no size.
  static size_t bytes_of(int64_t num_layers, int64_t num_blocks, int64_t bytes_per_block);
  ~KvPool();
  KvPool(const KvPool&) = delete;
  KvPool& operator=(const KvPool&) = delete;

  // Block 0 is never given out: it is the padding of block tables. Returns -1 when none is left.
  int64_t take();
  void give_back(std::span<const int64_t> blocks);
  // Blocks that can be given out, and those that are.
  int64_t total() const { return total_; }
  int64_t used() const { return next_ - 1 - static_cast<int64_t>(free_.size()); }
  // The graph's kv_cache inputs, one a layer.
  const std::vector<Array>& layers() const { return layers_; }

 private:
  void add_layers(char* memory, int64_t num_layers, int64_t num_blocks, int64_t bytes_per_block,
                  bool on_gpu);

  char* mapped_ = nullptr;  // ours
  size_t bytes_ = 0;
  int64_t total_;
  int64_t next_ = 1;  // the first block that was never given out: a list of all would be memory
  std::vector<Array> layers_;
  std::vector<int64_t> free_;  // those that came back
};
}  // namespace ingot

#include "kv_pool.h"

#include <sys/mman.h>

#include "error.h"

namespace ingot {
KvPool::KvPool(int64_t num_layers, int64_t num_blocks, int64_t bytes_per_block)
    : total_(num_blocks - 1) {
  const size_t layer = static_cast<size_t>(num_blocks) * bytes_per_block;
  bytes_ = layer * num_layers;
  void* memory = MAP_FAILED;
  if (layer / bytes_per_block == static_cast<size_t>(num_blocks) && bytes_ / num_layers == layer)
    memory = mmap(nullptr, bytes_, PROT_READ | PROT_WRITE,
                  MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (memory == MAP_FAILED)
    throw Error(INGOT_NO_SPACE, "no address space for a KV cache of " + std::to_string(num_blocks) +
                                    " blocks; ask for fewer tokens (kv_tokens)");
  memory_ = static_cast<char*>(memory);
  for (int64_t i = 0; i < num_layers; i++)
    layers_.push_back({memory_ + i * layer, 0, {num_blocks, bytes_per_block}});
}

KvPool::~KvPool() { munmap(memory_, bytes_); }

int64_t KvPool::take() {
  if (free_.empty()) return next_ <= total_ ? next_++ : -1;
  const int64_t block = free_.back();
  free_.pop_back();
  return block;
}

void KvPool::give_back(std::span<const int64_t> blocks) {
  free_.insert(free_.end(), blocks.rbegin(), blocks.rend());
}
}  // namespace ingot

#include "kv_pool.h"

#include <sys/mman.h>

#include "error.h"

namespace ingot {
namespace {
[[noreturn]] void refuse(int64_t num_blocks) {
  throw Error(INGOT_NO_SPACE, "no address space for a KV cache of " + std::to_string(num_blocks) +
                                  " blocks; ask for fewer tokens (kv_tokens)");
}
}  // namespace

KvPool::KvPool(int64_t num_layers, int64_t num_blocks, int64_t bytes_per_block)
    : bytes_(bytes_of(num_layers, num_blocks, bytes_per_block)), total_(num_blocks - 1) {
  void* memory = mmap(nullptr, bytes_, PROT_READ | PROT_WRITE,
                      MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (memory == MAP_FAILED) refuse(num_blocks);
  mapped_ = static_cast<char*>(memory);
  add_layers(mapped_, num_layers, num_blocks, bytes_per_block, false);
}

KvPool::KvPool(int64_t num_layers, int64_t num_blocks, int64_t bytes_per_block, char* gpu_memory)
    : total_(num_blocks - 1) {
  add_layers(gpu_memory, num_layers, num_blocks, bytes_per_block, true);
}

KvPool::~KvPool() {
  if (mapped_) munmap(mapped_, bytes_);
}

size_t KvPool::bytes_of(int64_t num_layers, int64_t num_blocks, int64_t bytes_per_block) {
  size_t layer = 0, bytes = 0;
  if (__builtin_mul_overflow(num_blocks, bytes_per_block, &layer) ||
      __builtin_mul_overflow(layer, num_layers, &bytes))
    refuse(num_blocks);
  return bytes;
}

void KvPool::add_layers(char* memory, int64_t num_layers, int64_t num_blocks,
                        int64_t bytes_per_block, bool on_gpu) {
  const int64_t layer = num_blocks * bytes_per_block;
  for (int64_t i = 0; i < num_layers; i++)
    layers_.push_back({memory + i * layer, 0, {num_blocks, bytes_per_block}, on_gpu});
}

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

// Decode steps as CUDA graphs: launching a model's hundreds of kernels one by one takes longer than
// they do (one launch is some microseconds of the CPU's), a captured graph is one launch.
//
// A graph is captured for one shape. Steps in which every sequence has one token are padded to a
// bucket, a power of two of sequences and of blocks in the block table: slot_mapping -1 writes
// nothing, tokens beyond query_start and sequences of length 0 give zeros (docs of
// paged_attention). A bucket's first step runs as it is, which loads the kernels and fills the pool
// with what the step needs; its second is captured.
#pragma once
#include <map>
#include <memory>
#include <optional>
#include <utility>
#include <vector>

#include "runner.h"

namespace ingot::cuda {
// What a decoder's graph takes at most, as its manifest says.
struct DecoderLimits {
  int64_t sequences, blocks;
  int64_t vocab_size;
};
DecoderLimits decoder_limits(const Signature& signature, int64_t vocab_size);

class DecodeGraphs {
 public:
  DecodeGraphs(Runner& runner, const DecoderLimits& limits) : runner_(runner), limits_(limits) {}

  // A decoder's inputs (docs/format.md, in that order) to logits [R, vocab_size] float32, in memory
  // that the next run takes again.
  Results run(const std::vector<Array>& inputs);

 private:
  struct Bucket {
    DeviceBuffer memory;
    std::vector<Array> arrays;  // the inputs, there
    bool is_warm = false, is_refused = false;
    std::optional<Replay> replay;
    const void* logits = nullptr;  // where a replay leaves them
  };
  using Size = std::pair<int64_t, int64_t>;  // sequences, blocks

  std::optional<Size> size_of(const std::vector<Array>& inputs) const;
  Results step(const std::vector<Array>& inputs);
  Results step_in(Bucket& bucket, const Size& size, const std::vector<Array>& inputs);
  void pad(const Size& size, const std::vector<Array>& inputs);
  bool capture(Bucket& bucket, int64_t rows);
  const void* logits_of(const Tensors& made, int64_t rows) const;
  Results fetch(const void* logits, int64_t rows);

  Runner& runner_;
  const DecoderLimits limits_;
  std::map<Size, Bucket> buckets_;
  PinnedBuffer logits_;
};
}  // namespace ingot::cuda

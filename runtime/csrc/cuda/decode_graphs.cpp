#include "decode_graphs.h"

#include <algorithm>
#include <bit>
#include <cstring>

#include "../error.h"
#include "../trace.h"

namespace ingot::cuda {
namespace {
constexpr int64_t kMostSequences = 64;  // beyond, kernels are long enough for their launches
constexpr int64_t kFewestBlocks = 16;   // 256 tokens: one bucket for all short sequences
constexpr int32_t kFloat32 = 6;         // c10::ScalarType
// A decoder's inputs.
enum {
  kTokens,
  kPositions,
  kSlots,
  kQueryStart,
  kSeqLens,
  kContextLens,
  kBlockTable,
  kRows,
  kCaches
};

int64_t most_of(const Signature& signature, size_t input, size_t dimension) {
  const auto found = signature.symbols.find(signature.inputs[input].shape[dimension].symbol);
  return found == signature.symbols.end() ? INT64_MAX : found->second.most;
}

int64_t power_of_two(int64_t value) {
  return static_cast<int64_t>(std::bit_ceil(static_cast<uint64_t>(value)));
}

const int64_t* integers(const Array& array) { return static_cast<const int64_t*>(array.data); }
}  // namespace

DecoderLimits decoder_limits(const Signature& signature, int64_t vocab_size) {
  const int64_t sequences =
      std::min({kMostSequences, most_of(signature, kTokens, 0), most_of(signature, kSeqLens, 0),
                most_of(signature, kRows, 0)});
  return {sequences, most_of(signature, kBlockTable, 1), vocab_size};
}

Results DecodeGraphs::run(const std::vector<Array>& inputs) {
  const InUse use(runner_.gpu());
  return runner_.with_memory([&] { return step(inputs); }, [&] { buckets_.clear(); });
}

// The bucket for these inputs, if they are those of a decode step.
std::optional<DecodeGraphs::Size> DecodeGraphs::size_of(const std::vector<Array>& inputs) const {
  const int64_t tokens = inputs[kTokens].shape[0], sequences = inputs[kSeqLens].shape[0],
                rows = inputs[kRows].shape[0];
  if (tokens != sequences || rows > sequences) return {};
  const Size size{power_of_two(sequences),
                  std::min(std::max(power_of_two(inputs[kBlockTable].shape[1]), kFewestBlocks),
                           limits_.blocks)};
  if (size.first > limits_.sequences) return {};
  return size;
}

Results DecodeGraphs::step(const std::vector<Array>& inputs) {
  if (const std::optional<Size> size = size_of(inputs)) {
    Bucket& bucket = buckets_[*size];
    return step_in(bucket, *size, inputs);
  }
  const int64_t rows = inputs[kRows].shape[0];
  const Tensors made = runner_.enqueue(inputs);
  return fetch(logits_of(made, rows), rows);
}

Results DecodeGraphs::step_in(Bucket& bucket, const Size& size, const std::vector<Array>& inputs) {
  HostTrace padding("inputs");
  pad(size, inputs);
  if (bucket.memory.bytes() == 0) {
    bucket.memory =
        DeviceBuffer(runner_.staging().bytes(), "allocating a step's inputs on the GPU");
    bucket.arrays = runner_.staging().arrays_at(bucket.memory.data());
  }
  padding.end();
  runner_.staging().send(runner_.gpu().device(), bucket.memory.data());
  const int64_t rows = inputs[kRows].shape[0];
  const bool replays = !tracing() && bucket.is_warm && !bucket.is_refused;  // a trace shows calls
  if (replays && (bucket.replay || capture(bucket, size.first))) {
    bucket.replay->launch(runner_.gpu().device());
    return fetch(bucket.logits, rows);
  }
  runner_.time_calls();
  const Tensors made = runner_.enqueue_there(bucket.arrays);
  bucket.is_warm = true;
  return fetch(logits_of(made, size.first), rows);
}

// The inputs as the bucket's, in the staging memory.
void DecodeGraphs::pad(const Size& size, const std::vector<Array>& inputs) {
  const auto [sequences, blocks] = size;
  std::vector<Array> padded = inputs;
  for (const int which : {kTokens, kPositions, kSlots, kSeqLens, kContextLens, kRows})
    padded[which].shape = {sequences};
  padded[kQueryStart].shape = {sequences + 1};
  padded[kBlockTable].shape = {sequences, blocks};
  Staging& staging = runner_.staging();
  staging.lay_out(padded);
  const auto fill = [&](int which, int64_t padding) {
    auto* to = reinterpret_cast<int64_t*>(staging.at(which));
    int64_t* end = std::copy_n(integers(inputs[which]), inputs[which].shape[0], to);
    std::fill(end, to + padded[which].shape[0], padding);
  };
  for (const int which : {kTokens, kPositions, kSeqLens, kContextLens, kRows}) fill(which, 0);
  fill(kSlots, -1);
  const int64_t count = inputs[kSeqLens].shape[0], width = inputs[kBlockTable].shape[1];
  fill(kQueryStart, integers(inputs[kQueryStart])[count]);
  auto* table = reinterpret_cast<int64_t*>(staging.at(kBlockTable));
  std::fill_n(table, sequences * blocks, 0);
  for (int64_t b = 0; b < count; b++)
    std::copy_n(integers(inputs[kBlockTable]) + b * width, width, table + b * blocks);
}

// Whether the bucket now has a graph. What cannot be captured runs as it is from here on.
bool DecodeGraphs::capture(Bucket& bucket, int64_t rows) {
  const HostTrace capturing("capture");
  try {
    bucket.replay.emplace(runner_.gpu().device(), [&] {
      const Tensors made = runner_.enqueue_there(bucket.arrays);
      bucket.logits = logits_of(made, rows);
    });
  } catch (const Error&) {
    runner_.ran_out();  // memory of a capture must be there before
    bucket.is_refused = true;
  }
  return bucket.replay.has_value();
}

const void* DecodeGraphs::logits_of(const Tensors& made, int64_t rows) const {
  const Made logits = made.at(0);
  if (!logits.array.on_gpu || logits.array.scalar_type != kFloat32 ||
      logits.array.shape != std::vector<int64_t>{rows, limits_.vocab_size} ||
      row_major(logits.array.shape) != logits.strides)
    throw Error(INGOT_FAILED, "generated code gave logits of an unexpected size");
  return logits.array.data;
}

Results DecodeGraphs::fetch(const void* logits, int64_t rows) {
  const size_t bytes = static_cast<size_t>(rows * limits_.vocab_size) * sizeof(float);
  logits_.grow(bytes);
  runner_.gpu().device().copy_to_host(logits_.data(), logits, bytes);
  runner_.finish();
  return Results({{logits_.data(), kFloat32, {rows, limits_.vocab_size}}}, {});
}
}  // namespace ingot::cuda

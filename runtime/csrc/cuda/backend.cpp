#include "backend.h"

#include <string>

namespace ingot::cuda {
namespace {
constexpr DeviceId kFirst = 0;
constexpr double kCacheShare = 0.8;  // of free memory; the rest is for temporaries of a step
}  // namespace

Backend::Backend() : gpu_(kFirst) {}

Backend::~Backend() {
  const InUse use(gpu_);
  decode_.reset();
  runner_.reset();
  cache_ = {};
  weights_ = {};
}

Weights Backend::upload(std::string_view mapped, const Progress& progress) {
  const InUse use(gpu_);
  weights_ = cuda::upload(gpu_.device(), mapped, progress);
  return {weights_.data(), mapped.size(), "cuda:" + std::to_string(kFirst), true};
}

// Generated code unloads its kernels at its end, wherever that is called.
std::shared_ptr<Graph> Backend::load(const std::function<std::unique_ptr<Graph>()>& make) {
  const InUse use(gpu_);
  return {make().release(), [this](Graph* graph) {
            const InUse using_it(gpu_);
            delete graph;
          }};
}

int64_t Backend::room_for(int64_t bytes_per_block) const {
  const InUse use(gpu_);
  const double room = kCacheShare * static_cast<double>(gpu_.device().memory().free);
  return static_cast<int64_t>(room / static_cast<double>(bytes_per_block));
}

char* Backend::make_cache(size_t bytes) {
  const InUse use(gpu_);
  const std::string purpose =
      "allocating a KV cache of " + std::to_string(bytes >> 20) + " MB on the GPU";
  cache_ = DeviceBuffer(bytes, purpose.c_str());
  gpu_.device().zero(cache_.data(), bytes);
  return cache_.data();
}

RunGraph Backend::runs(Graph& graph, const Manifest& manifest) {
  runner_ = std::make_unique<Runner>(gpu_, graph);
  if (manifest.kind != Kind::decoder)
    return [this](const std::vector<Array>& inputs) { return runner_->run(inputs); };
  decode_ = std::make_unique<DecodeGraphs>(
      *runner_, decoder_limits(manifest.signature, manifest.decoder.vocab_size));
  return [this](const std::vector<Array>& inputs) { return decode_->run(inputs); };
}
}  // namespace ingot::cuda

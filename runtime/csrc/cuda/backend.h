// All that a package has on a GPU: its weights, its KV cache, what runs its graph.
#pragma once
#include <functional>
#include <memory>
#include <string>
#include <string_view>

#include "../graph.h"
#include "../manifest.h"
#include "decode_graphs.h"
#include "gpu.h"
#include "runner.h"
#include "upload.h"

namespace ingot::cuda {
class Backend {
 public:
  // Of the first GPU that CUDA_VISIBLE_DEVICES leaves. Throws Error.
  Backend();
  ~Backend();
  Backend(const Backend&) = delete;
  Backend& operator=(const Backend&) = delete;

  const DeviceFacts& facts() const { return gpu_.device().facts(); }
  // Once each.
  Weights upload(std::string_view mapped, const Progress& progress);
  std::shared_ptr<Graph> load(const std::function<std::unique_ptr<Graph>()>& make);
  // How many of the KV cache's blocks, of so many bytes in all layers, there is room for beside a
  // step's temporaries.
  int64_t room_for(int64_t bytes_per_block) const;
  char* make_cache(size_t bytes);
  // What runs `graph`; of a decoder, decode steps are CUDA graphs. Not longer than this lives.
  RunGraph runs(Graph& graph, const Manifest& manifest);

 private:
  Gpu gpu_;
  DeviceBuffer weights_, cache_;
  std::unique_ptr<Runner> runner_;
  std::unique_ptr<DecodeGraphs> decode_;
};
}  // namespace ingot::cuda

// Runs a package's graph on a GPU with arrays of the CPU, step by step on one stream. One thread
// calls at a time.
#pragma once
#include <functional>
#include <vector>

#include "../graph.h"
#include "gpu.h"
#include "staging.h"

namespace ingot::cuda {
// Tensors that generated code made, which go back to the host with this.
class Tensors {
 public:
  explicit Tensors(std::vector<void*> handles) : handles_(std::move(handles)) {}
  Tensors(Tensors&& other) noexcept : handles_(std::move(other.handles_)) {
    other.handles_.clear();
  }
  Tensors& operator=(Tensors&&) = delete;
  ~Tensors();
  size_t count() const { return handles_.size(); }
  Made at(size_t index) const { return describe(handles_[index]); }

 private:
  std::vector<void*> handles_;
};

class Runner {
 public:
  Runner(Gpu& gpu, Graph& graph) : gpu_(gpu), graph_(graph) {}

  // Any graph, as RunGraph; what it gives lasts.
  Results run(const std::vector<Array>& inputs);

  // The parts of that, for who has more to do. The GPU is to be in use (InUse).
  Gpu& gpu() { return gpu_; }
  Staging& staging() { return staging_; }
  // Enqueues a copy of the inputs and the graph.
  Tensors enqueue(const std::vector<Array>& inputs);
  // Enqueues the graph with arrays on the GPU.
  Tensors enqueue_there(const std::vector<Array>& arrays);
  // Times the calls that are enqueued from here to `finish`, if there is a trace.
  void time_calls();
  // Waits for the stream.
  void finish();
  // `step`, and where it failed, as it does where the GPU's memory ran out, once more with all that
  // the pool can give back; `forget` first ends what holds addresses of the pool. Throws
  // Error(INGOT_NO_SPACE) if there still is too little.
  Results with_memory(const std::function<Results()>& step, const std::function<void()>& forget);
  // Whether a step has found no memory since this was asked last.
  bool ran_out();

 private:
  Results fetch(const Tensors& made);

  Gpu& gpu_;
  Graph& graph_;
  Staging staging_;
  DeviceBuffer inputs_;
};
}  // namespace ingot::cuda

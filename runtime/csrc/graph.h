// Generated code, loaded: the one graph of a package, its constants bound in place.
//
// On a GPU everything here wants the device current on the calling thread, in CUDA and in the host
// (cuda/runner.h does both).
#pragma once
#include <cstddef>
#include <cstdint>
#include <functional>
#include <string>
#include <utility>
#include <vector>

#include "code.h"
#include "manifest.h"
#include "signature.h"

namespace ingot {
// What a run made: tensors of the host, which go back to it with this object.
class Results {
 public:
  explicit Results(std::vector<void*> tensors);
  // Arrays in memory of others, that stays as long as the caller says, or in `copies`.
  Results(std::vector<Array> arrays, std::vector<std::vector<char>> copies)
      : arrays_(std::move(arrays)), copies_(std::move(copies)) {}
  ~Results();
  Results(Results&& other) noexcept = default;
  Results& operator=(Results&& other) = delete;

  size_t count() const { return arrays_.size(); }
  // Row-major and contiguous; valid as long as this object.
  const Array& array(size_t index) const { return arrays_[index]; }

 private:
  std::vector<void*> tensors_;
  std::vector<Array> arrays_;
  std::vector<std::vector<char>> copies_;  // of those that lie otherwise, or in others' memory
};

// Where the constants lie, and what generated code calls the device: "cpu", "cuda:0".
struct Weights {
  char* data;
  size_t bytes;
  std::string device = "cpu";
  bool on_gpu = false;
};

// What a tensor of the host is: `strides` in elements.
struct Made {
  Array array;
  std::vector<int64_t> strides;
  bool owned;
  size_t span_bytes() const;  // from its first element to the end of its last
};
Made describe(void* tensor);
// The elements of a strided array of the CPU, in row-major order.
std::vector<char> contiguous(const Array& array, const std::vector<int64_t>& strides);
std::vector<int64_t> row_major(const std::vector<int64_t>& shape);

// Runs a graph, wherever that is, with arrays of the CPU (but for the KV cache); throws Error. What
// it gives may be gone with the next run.
using RunGraph = std::function<Results(const std::vector<Array>&)>;

class Graph {
 public:
  // `libraries` are those with the user's own ops. Throws Error.
  Graph(const Code& code, const std::vector<Code>& libraries, const Weights& weights,
        const Manifest& manifest, const std::string& path);
  ~Graph();
  Graph(const Graph&) = delete;
  Graph& operator=(const Graph&) = delete;

  // Throws Error. One call at a time.
  Results run(const std::vector<Array>& inputs);
  // The same on a GPU's stream, whose work goes on when it returns; the tensors are the caller's.
  std::vector<void*> enqueue(const std::vector<Array>& inputs, void* stream);

 private:
  Graph() = default;
  void find_entry_points(const std::string& path);
  void check_signature(const Manifest& manifest, const std::string& path);
  void bind(const Weights& weights, const Manifest& manifest, const std::string& path);
  void check(int32_t status, const char* what) const;

  // AOTInductor's container interface (torch/csrc/inductor/aoti_runtime/interface.h).
  struct ConstantPair {
    const char* name;
    void* tensor;
  };
  void* library_ = nullptr;
  void* container_ = nullptr;
  std::vector<void*> constants_;
  void* copies_ = nullptr;  // of the constants' handles, made by generated code
  size_t outputs_ = 0;
  int32_t (*create_)(void**, size_t, const char*, const char*) = nullptr;
  int32_t (*delete_)(void*) = nullptr;
  int32_t (*run_)(void*, void**, size_t, void**, size_t, void*, void*) = nullptr;
  int32_t (*input_count_)(void*, size_t*) = nullptr;
  int32_t (*output_count_)(void*, size_t*) = nullptr;
  int32_t (*constant_count_)(void*, size_t*) = nullptr;
  int32_t (*constant_name_)(void*, size_t, const char**) = nullptr;
  int32_t (*constant_fqn_)(void*, size_t, const char**) = nullptr;
  int32_t (*constant_bytes_)(void*, size_t, size_t*) = nullptr;
  int32_t (*constant_dtype_)(void*, size_t, int32_t*) = nullptr;
  int32_t (*bind_)(void*, const ConstantPair*, size_t, bool, bool) = nullptr;
  int32_t (*last_error_)(const char**) = nullptr;  // absent before torch 2.13
};
}  // namespace ingot

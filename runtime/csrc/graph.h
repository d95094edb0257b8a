// Generated code, loaded: the one graph of a package, its constants bound in place.
#pragma once
#include <cstddef>
#include <cstdint>
#include <string_view>
#include <vector>

#include "code.h"
#include "manifest.h"
#include "signature.h"

namespace ingot {
// What a run made: tensors of the host, which go back to it with this object.
class Results {
 public:
  explicit Results(std::vector<void*> tensors);
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

class Graph {
 public:
  // `libraries` are those with the user's own ops, `weights` the mapped store. Throws Error.
  Graph(const Code& code, const std::vector<Code>& libraries, std::string_view weights,
        const Manifest& manifest, const std::string& path);
  ~Graph();
  Graph(const Graph&) = delete;
  Graph& operator=(const Graph&) = delete;

  // Throws Error. One call at a time.
  Results run(const std::vector<Array>& inputs);

 private:
  Graph() = default;
  void find_entry_points(const std::string& path);
  void check_signature(const Manifest& manifest, const std::string& path);
  void bind(std::string_view weights, const Manifest& manifest, const std::string& path);
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

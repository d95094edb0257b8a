// An opened package: immutable, shared by its sessions.
#pragma once
#include <memory>
#include <string>
#include <string_view>

#include "archive.h"
#include "cuda/backend.h"
#include "engine.h"
#include "graph.h"
#include "kv_pool.h"
#include "manifest.h"
#include "step_thread.h"
#include "weights_copy.h"

namespace ingot {
class Package {
 public:
  // Throws Error.
  Package(const std::string& path, const ingot_options& options);
  ~Package();

  const char* manifest_json() const { return manifest_json_.c_str(); }
  const Manifest& manifest() const { return manifest_; }
  // Name of the variant whose code was loaded.
  const std::string& variant() const { return variant_; }
  const Archive& archive() const { return archive_; }
  // Throws Error if this is no decoder's package.
  Engine& engine();
  // Throws Error if the inputs are not what the package takes, or if it is a decoder's.
  Results run(const std::vector<Array>& inputs);
  // As `ingot::embed`. Throws Error if this is no encoder's package.
  void embed(const int64_t* tokens, const size_t* lengths, size_t count, float* embeddings);
  bool in_child() const { return thread_->in_child(); }
  std::string_view token_bytes(int64_t token) const;
  double measure_read(size_t bytes) const;

 private:
  void start_gpu();
  Weights place_weights(const ingot_options& options);
  void map_weights_ahead();
  void start_engine(int64_t kv_tokens);
  int64_t lone_step_tokens() const;
  int64_t cache_blocks(int64_t kv_tokens) const;
  const Variant& choose_variant() const;
  StepFacts describe(const std::vector<Array>& inputs) const;
  void check_ops() const;
  void check_all_entries() const;
  void check_entry(const std::string& name, std::string_view data) const;
  Code checked_code(const std::string& name, const char* what) const;

  Archive archive_;
  std::string manifest_json_;
  Manifest manifest_;
  const char* model_;  // as StepFacts has it
  std::string variant_;
  int threads_;                         // 0: the cores that are free
  std::unique_ptr<cuda::Backend> gpu_;  // if it is for one
  std::unique_ptr<WeightsCopy> copy_;   // if asked for
  std::string_view weights_;
  bool weights_are_mapped_ = false;  // the step thread's
  std::shared_ptr<Graph> graph_;
  RunGraph run_graph_;
  std::unique_ptr<KvPool> pool_;
  std::shared_ptr<StepThread> thread_;
  std::unique_ptr<Engine> engine_;  // a decoder's
};
}  // namespace ingot

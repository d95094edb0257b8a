// An opened package: immutable, shared by its sessions.
#pragma once
#include <memory>
#include <string>
#include <string_view>

#include "archive.h"
#include "engine.h"
#include "graph.h"
#include "kv_pool.h"
#include "manifest.h"

namespace ingot {
class Package {
 public:
  // Throws Error.
  Package(const std::string& path, const ingot_options& options);

  const char* manifest_json() const { return manifest_json_.c_str(); }
  const Manifest& manifest() const { return manifest_; }
  const Archive& archive() const { return archive_; }
  Engine& engine() { return *engine_; }
  std::string_view token_bytes(int64_t token) const;
  double measure_read(size_t bytes) const;

 private:
  const Variant& choose_variant() const;
  void check_ops() const;
  void check_entry(const std::string& name) const;

  Archive archive_;
  std::string manifest_json_;
  Manifest manifest_;
  int threads_;
  std::string_view weights_;
  std::unique_ptr<Graph> graph_;
  std::unique_ptr<KvPool> pool_;
  std::unique_ptr<Engine> engine_;
};
}  // namespace ingot

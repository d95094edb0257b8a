// The manifest: what a package says of itself (docs/format.md), checked while it is read.
#pragma once
#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <vector>

namespace ingot {
struct Constant {
  uint64_t offset, bytes;
  int32_t scalar_type;
  std::vector<int64_t> shape, stride;
};

struct Variant {
  std::string name, isa, entry;
  std::vector<std::string> requires_symbols;
};

struct EntryFact {
  uint64_t bytes;
  std::string sha256;
};

struct Manifest {
  int64_t vocab_size, num_layers, max_seq_len, block_size, bytes_per_block;
  std::map<std::string, Constant> constants;
  std::map<std::string, std::string> ops;  // name -> schema
  std::vector<Variant> variants;
  std::vector<int64_t> eos_token_ids;
  std::map<std::string, EntryFact> entries;
};

// Throws Error, a sentence with `path`, for JSON that is not a manifest this library reads.
Manifest parse_manifest(std::string_view json, const std::string& path);
}  // namespace ingot

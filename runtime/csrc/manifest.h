// The manifest: what a package says of itself (docs/format.md), checked while it is read.
#pragma once
#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "pooling.h"
#include "signature.h"

namespace ingot {
struct Constant {
  uint64_t offset, bytes;
  int32_t scalar_type;
  std::vector<int64_t> shape, stride;
};

struct Variant {
  std::string name, entry;
  std::string isa;               // least x86-64 level; may be "" on a GPU
  std::string gpu_architecture;  // "sm_90"; "" on the CPU
  std::vector<std::string> requires_symbols;
};

struct EntryFact {
  uint64_t bytes;
  std::string sha256;
};

enum class Kind { decoder, encoder, module };  // module: anything that is run by arrays

struct DecoderFacts {
  int64_t vocab_size = 0, num_layers = 0, max_seq_len = 0, block_size = 0, bytes_per_block = 0;
  std::vector<int64_t> eos_token_ids;
};

struct Manifest {
  std::string card;  // its `model`, as JSON
  Kind kind;
  bool on_gpu = false;   // its device is "cuda"
  DecoderFacts decoder;  // of that kind only
  Embedding embedding;   // of an encoder only
  Signature signature;
  size_t output_count;
  std::map<std::string, Constant> constants;
  std::map<std::string, std::string> ops;  // name -> schema
  std::vector<Variant> variants;
  std::vector<std::string> op_libraries;  // entries, to be opened before the code
  std::map<std::string, EntryFact> entries;
};

// Throws Error, a sentence with `path`, for JSON that is not a manifest this library reads.
Manifest parse_manifest(std::string_view json, const std::string& path);
}  // namespace ingot

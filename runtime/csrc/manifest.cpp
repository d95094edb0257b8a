#include "manifest.h"

#include <nlohmann/json.hpp>

#include "error.h"

namespace ingot {
namespace {
using nlohmann::json;
constexpr int64_t kFormatVersion = 1;
constexpr int64_t kBlockSize = 16;  // of paged_attention, the only op that knows a block
constexpr int64_t kLargest = int64_t{1} << 40;  // of any size or count: products stay in range

int32_t scalar_type(const std::string& dtype) {
  static const std::map<std::string, int32_t> known = {
      {"uint8", 0},   {"int8", 1},    {"int16", 2},   {"int32", 3}, {"int64", 4},
      {"float16", 5}, {"float32", 6}, {"float64", 7}, {"bool", 11}, {"bfloat16", 15}};
  const auto found = known.find(dtype);
  if (found == known.end()) throw std::runtime_error("unknown dtype '" + dtype + "'");
  return found->second;
}

int64_t positive(const json& object, const char* name) {
  const int64_t value = object.at(name).get<int64_t>();
  if (value < 1 || value > kLargest)
    throw std::runtime_error(std::string(name) + " is " + std::to_string(value));
  return value;
}

Constant constant(const json& object) {
  Constant c{object.at("offset").get<uint64_t>(), object.at("nbytes").get<uint64_t>(),
             scalar_type(object.at("dtype").get<std::string>()),
             object.at("shape").get<std::vector<int64_t>>(),
             object.at("stride").get<std::vector<int64_t>>()};
  if (c.shape.size() != c.stride.size() || c.shape.size() > 8)
    throw std::runtime_error("a constant's shape and stride do not match");
  return c;
}

Manifest read(const json& root) {
  Manifest m;
  const json &model = root.at("model"), &cache = root.at("kv_cache");
  m.vocab_size = positive(model, "vocab_size");
  m.max_seq_len = positive(model, "max_seq_len");
  m.num_layers = positive(cache, "num_layers");
  m.block_size = positive(cache, "block_size");
  if (m.block_size != kBlockSize) throw std::runtime_error("block_size is not 16");
  m.bytes_per_block = positive(cache, "bytes_per_block");
  for (const auto& [name, value] : root.at("constants").items())
    m.constants.emplace(name, constant(value));
  m.ops = root.at("ops").get<std::map<std::string, std::string>>();
  for (const json& v : root.at("variants"))
    m.variants.push_back({v.at("name").get<std::string>(), v.at("isa").get<std::string>(),
                          v.at("entry").get<std::string>(),
                          v.at("requires").get<std::vector<std::string>>()});
  m.eos_token_ids = root.at("generation").at("eos_token_ids").get<std::vector<int64_t>>();
  for (const auto& [name, value] : root.at("entries").items())
    m.entries[name] = {value.at("bytes").get<uint64_t>(), value.at("sha256").get<std::string>()};
  return m;
}
}  // namespace

Manifest parse_manifest(std::string_view text, const std::string& path) {
  try {
    const json root = json::parse(text);
    const int64_t version = root.at("format_version").get<int64_t>();
    if (version != kFormatVersion)
      bad_package(path + " has format version " + std::to_string(version) +
                  ", this library reads " + std::to_string(kFormatVersion) + "; " +
                  (version > kFormatVersion ? "update Ingot" : "export the package again"));
    return read(root);
  } catch (const Error&) {
    throw;
  } catch (const std::exception& error) {  // of the JSON library, or read()'s own
    bad_package("the manifest of " + path + " cannot be read (" + error.what() +
                "); export the package again");
  }
}
}  // namespace ingot

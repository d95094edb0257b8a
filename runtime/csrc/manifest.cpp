#include "manifest.h"

#include <nlohmann/json.hpp>

#include "error.h"

namespace ingot {
namespace {
using nlohmann::json;
constexpr int64_t kFormatVersion = 1;
constexpr int64_t kBlockSize = 16;    // of paged_attention, the only op that knows a block
constexpr size_t kDecoderInputs = 8;  // tokens to logit_rows; then a cache for each layer
constexpr size_t kEncoderInputs = 4;  // tokens to query_start
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

DecoderFacts decoder_facts(const json& root) {
  DecoderFacts d;
  const json &model = root.at("model"), &cache = root.at("kv_cache");
  d.vocab_size = positive(model, "vocab_size");
  d.max_seq_len = positive(model, "max_seq_len");
  d.num_layers = positive(cache, "num_layers");
  d.block_size = positive(cache, "block_size");
  if (d.block_size != kBlockSize) throw std::runtime_error("block_size is not 16");
  d.bytes_per_block = positive(cache, "bytes_per_block");
  d.eos_token_ids = root.at("generation").at("eos_token_ids").get<std::vector<int64_t>>();
  return d;
}

Pooling pooling(const std::string& name) {
  if (name == "mean") return Pooling::mean;
  if (name == "cls") return Pooling::cls;
  if (name == "max") return Pooling::max;
  if (name == "mean_sqrt_len") return Pooling::mean_sqrt_len;
  throw std::runtime_error("pooling is '" + name + "'");
}

Embedding embedding(const json& root) {
  const json &model = root.at("model"), &how = root.at("embedding");
  return {pooling(how.at("pooling").get<std::string>()), how.at("normalize").get<bool>(),
          positive(how, "max_tokens"), positive(model, "hidden_size"),
          positive(model, "vocab_size")};
}

Signature signature(const json& graph) {
  Signature s;
  for (const json& given : graph.at("inputs")) {
    Input input{
        given.at("name").get<std::string>(), scalar_type(given.at("dtype").get<std::string>()), {}};
    for (const json& size : given.at("shape"))
      input.shape.push_back(size.is_string() ? parse_dim(size.get<std::string>())
                                             : Dim{"", 0, size.get<int64_t>()});
    if (input.shape.size() > 8) throw std::runtime_error("an input has more than 8 dimensions");
    s.inputs.push_back(std::move(input));
  }
  if (graph.contains("symbols"))
    for (const auto& [name, range] : graph.at("symbols").items())
      s.symbols[name] = {range.at(0).get<int64_t>(), range.at(1).get<int64_t>()};
  return s;
}

// The graph contracts of the kinds that the runtime drives itself (docs/format.md).
void check_contract(const Manifest& m) {
  const size_t inputs = m.kind == Kind::decoder
                            ? kDecoderInputs + static_cast<size_t>(m.decoder.num_layers)
                            : kEncoderInputs;
  if (m.kind != Kind::module && (m.signature.inputs.size() != inputs || m.output_count != 1))
    throw std::runtime_error("a graph of this kind takes " + std::to_string(inputs) +
                             " inputs, not " + std::to_string(m.signature.inputs.size()));
}

Manifest read(const json& root) {
  Manifest m;
  m.card = root.at("model").dump();
  const std::string kind = root.at("model").at("kind").get<std::string>();
  m.kind = kind == "decoder" ? Kind::decoder : kind == "encoder" ? Kind::encoder : Kind::module;
  if (m.kind == Kind::decoder) m.decoder = decoder_facts(root);
  if (m.kind == Kind::encoder) m.embedding = embedding(root);
  m.signature = signature(root.at("graph"));
  m.output_count = root.at("graph").at("outputs").size();
  check_contract(m);
  for (const auto& [name, value] : root.at("constants").items())
    m.constants.emplace(name, constant(value));
  m.ops = root.at("ops").get<std::map<std::string, std::string>>();
  for (const json& v : root.at("variants"))
    m.variants.push_back({v.at("name").get<std::string>(), v.at("isa").get<std::string>(),
                          v.at("entry").get<std::string>(),
                          v.at("requires").get<std::vector<std::string>>()});
  if (root.contains("op_libraries"))
    m.op_libraries = root.at("op_libraries").get<std::vector<std::string>>();
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

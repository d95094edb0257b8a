#include "manifest.h"

#include <algorithm>
#include <nlohmann/json.hpp>

#include "error.h"

namespace ingot {
namespace {
using nlohmann::json;
constexpr int64_t kFormatVersion = 1;
constexpr int64_t kBlockSize = 16;         // of paged_attention, the only op that knows a block
constexpr size_t kDecoderInputs = 8;       // tokens to logit_rows; then a cache for each layer
constexpr size_t kEncoderInputs = 4;       // tokens to query_start
constexpr size_t kBlockTable = 6;          // of a decoder's
constexpr int32_t kUInt8 = 0, kInt64 = 4;  // c10::ScalarType
constexpr int64_t kLargest = int64_t{1} << 40;  // of any size or count: products stay in range
constexpr size_t kMaxBytes =
    16 << 20;                         // of the text: parsed, it takes up to 30 times as much memory
constexpr int kMaxDepth = 32;         // of its nesting: writing it again is recursive
constexpr size_t kMaxLibraries = 64;  // each is copied
constexpr uint64_t kAlignment = 64;   // of a constant

// Of brackets outside of strings. The parser's callback would say it too, but takes the square of
// an object's size (nlohmann::json 3.11).
int depth(std::string_view text) {
  int now = 0, most = 0;
  bool quoted = false;
  for (size_t i = 0; i < text.size(); i++) {
    const char c = text[i];
    if (quoted && c == '\\')
      i++;
    else if (c == '"')
      quoted = !quoted;
    else if (!quoted && (c == '[' || c == '{'))
      most = std::max(most, ++now);
    else if (!quoted && (c == ']' || c == '}'))
      now--;
  }
  return most;
}

int32_t scalar_type(const std::string& dtype) {
  static const std::map<std::string, int32_t> known = {
      {"uint8", 0},   {"int8", 1},    {"int16", 2},   {"int32", 3}, {"int64", 4},
      {"float16", 5}, {"float32", 6}, {"float64", 7}, {"bool", 11}, {"bfloat16", 15}};
  const auto found = known.find(dtype);
  if (found == known.end()) throw std::runtime_error("unknown dtype '" + dtype + "'");
  return found->second;
}

// get<int64_t>() would also take 1e300, true and what needs 64 bits unsigned, each for some number.
int64_t integer(const json& value, int64_t least, int64_t most, const std::string& what) {
  const bool fits = value.is_number_integer() &&
                    !(value.is_number_unsigned() && value.get<uint64_t>() > uint64_t{INT64_MAX});
  if (!fits || value.get<int64_t>() < least || value.get<int64_t>() > most)
    throw std::runtime_error(what + " is " + value.dump());
  return value.get<int64_t>();
}
int64_t positive(const json& object, const char* name) {
  return integer(object.at(name), 1, kLargest, name);
}
int64_t size(const json& object, const char* name) {
  return integer(object.at(name), 0, INT64_MAX, name);
}

std::vector<int64_t> sizes(const json& object, const char* name) {
  std::vector<int64_t> found;
  for (const json& value : object.at(name)) found.push_back(integer(value, 0, kLargest, name));
  return found;
}

Constant constant(const json& object) {
  Constant c{static_cast<uint64_t>(size(object, "offset")),
             static_cast<uint64_t>(size(object, "nbytes")),
             scalar_type(object.at("dtype").get<std::string>()), sizes(object, "shape"),
             sizes(object, "stride")};
  if (c.shape.size() != c.stride.size() || c.shape.size() > 8)
    throw std::runtime_error("a constant's shape and stride do not match");
  if (c.offset % kAlignment) throw std::runtime_error("a constant's offset is no multiple of 64");
  return c;
}

// What `ingot-run` and Python take the defaults of a generation from.
void check_generation(const json& generation) {
  const auto check = [&](const char* name, bool (json::*is)() const noexcept) {
    if (generation.contains(name) && !(generation.at(name).*is)())
      throw std::runtime_error(std::string(name) + " is " + generation.at(name).dump());
  };
  check("do_sample", &json::is_boolean);
  check("temperature", &json::is_number);
  check("top_p", &json::is_number);
  if (generation.contains("top_k")) integer(generation.at("top_k"), 0, INT32_MAX, "top_k");
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
  const json& generation = root.at("generation");
  check_generation(generation);
  for (const json& id : generation.at("eos_token_ids"))
    d.eos_token_ids.push_back(integer(id, INT64_MIN, INT64_MAX, "a stop token"));
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
                                             : Dim{"", 0, integer(size, 0, kLargest, "a size")});
    if (input.shape.size() > 8) throw std::runtime_error("an input has more than 8 dimensions");
    s.inputs.push_back(std::move(input));
  }
  if (graph.contains("symbols"))
    for (const auto& [name, range] : graph.at("symbols").items())
      s.symbols[name] = {integer(range.at(0), 0, INT64_MAX, name),
                         integer(range.at(1), 0, INT64_MAX, name)};
  return s;
}

// The graph contracts of the kinds that the runtime drives itself (docs/format.md): it makes these
// inputs and reads them by these types, whatever the manifest says.
void check_contract(const Manifest& m) {
  if (m.kind == Kind::module) return;
  const bool decodes = m.kind == Kind::decoder;
  const size_t integers = decodes ? kDecoderInputs : kEncoderInputs;
  const size_t inputs = integers + (decodes ? static_cast<size_t>(m.decoder.num_layers) : 0);
  if (m.signature.inputs.size() != inputs || m.output_count != 1)
    throw std::runtime_error("a graph of this kind takes " + std::to_string(inputs) +
                             " inputs, not " + std::to_string(m.signature.inputs.size()));
  for (size_t i = 0; i < inputs; i++) {
    const Input& input = m.signature.inputs[i];
    const bool is_matrix = i >= integers || (decodes && i == kBlockTable);
    if (input.scalar_type != (i < integers ? kInt64 : kUInt8) ||
        input.shape.size() != (is_matrix ? 2 : 1))
      throw std::runtime_error("input " + input.name + " is not what a graph of this kind takes");
  }
}

Variant variant(const json& v, bool on_gpu) {
  Variant found;
  found.name = v.at("name").get<std::string>();
  found.entry = v.at("entry").get<std::string>();
  if (on_gpu) found.gpu_architecture = v.at("gpu_architecture").get<std::string>();
  if (!on_gpu || v.contains("isa")) found.isa = v.at("isa").get<std::string>();
  found.requires_symbols = v.at("requires").get<std::vector<std::string>>();
  return found;
}

bool is_on_gpu(const json& root) {
  const std::string device = root.value("device", "cpu");
  if (device != "cpu" && device != "cuda") throw std::runtime_error("device is '" + device + "'");
  return device == "cuda";
}

Manifest read(const json& root) {
  Manifest m;
  m.card = root.at("model").dump();
  const std::string kind = root.at("model").at("kind").get<std::string>();
  m.on_gpu = is_on_gpu(root);
  m.kind = kind == "decoder" ? Kind::decoder : kind == "encoder" ? Kind::encoder : Kind::module;
  if (m.kind == Kind::decoder) m.decoder = decoder_facts(root);
  if (m.kind == Kind::encoder) m.embedding = embedding(root);
  m.signature = signature(root.at("graph"));
  m.output_count = root.at("graph").at("outputs").size();
  check_contract(m);
  for (const auto& [name, value] : root.at("constants").items()) {
    try {
      m.constants.emplace(name, constant(value));
    } catch (const std::exception& error) {
      throw std::runtime_error(name + ": " + error.what());
    }
  }
  m.ops = root.at("ops").get<std::map<std::string, std::string>>();
  for (const json& v : root.at("variants")) m.variants.push_back(variant(v, m.on_gpu));
  if (root.contains("op_libraries"))
    m.op_libraries = root.at("op_libraries").get<std::vector<std::string>>();
  if (m.op_libraries.size() > kMaxLibraries)
    throw std::runtime_error("it has too many op_libraries");
  for (const auto& [name, value] : root.at("entries").items())
    m.entries[name] = {static_cast<uint64_t>(size(value, "bytes")),
                       value.at("sha256").get<std::string>()};
  return m;
}
}  // namespace

Manifest parse_manifest(std::string_view text, const std::string& path) {
  if (text.size() > kMaxBytes)
    bad_package("the manifest of " + path + " has " + std::to_string(text.size()) +
                " bytes, of which this library reads " + std::to_string(kMaxBytes) +
                "; export the package again");
  try {
    if (depth(text) > kMaxDepth) throw std::runtime_error("it is nested too deeply");
    const json root = json::parse(text);
    const int64_t version = integer(root.at("format_version"), 0, INT64_MAX, "format_version");
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

#include "package.h"

#include <algorithm>
#include <cstring>
#include <optional>

#include "cpu.h"
#include "embed.h"
#include "error.h"
#include "host.h"
#include "measure.h"
#include "sha256.h"

namespace ingot {
namespace {
constexpr int64_t kDefaultSequences = 8;  // full-length ones; memory is committed as it is used
}

Package::Package(const std::string& path, const ingot_options& options)
    : archive_(path),
      manifest_json_(archive_.entry("ingot/manifest.json")),
      manifest_(parse_manifest(manifest_json_, path)),
      model_(lasting(manifest_.card)),
      threads_(options.threads) {
  if (options.threads < 0 || options.kv_tokens < 0)
    bad_input("threads and kv_tokens must not be negative; 0 means the default");
  const Variant& variant = choose_variant();
  check_ops();
  const Code code = checked_code(variant.entry, "the code");
  weights_ = archive_.entry("ingot/weights.bin");
  if (options.verify_weights) check_entry("ingot/weights.bin");
  if (options.copy_weights) {
    copy_ = std::make_unique<WeightsCopy>(weights_);
    weights_ = copy_->view();
  }
  std::vector<Code> libraries;
  for (const std::string& entry : manifest_.op_libraries)
    libraries.push_back(checked_code(entry, "an op library"));
  graph_ = std::make_unique<Graph>(code, libraries, weights_, manifest_, path);
  if (manifest_.kind == Kind::decoder)
    start_engine(options.kv_tokens);
  else
    worker_ = std::make_unique<Worker>(threads_);
}

void Package::start_engine(int64_t kv_tokens) {
  const DecoderFacts& d = manifest_.decoder;
  const int64_t per_sequence = (d.max_seq_len + d.block_size - 1) / d.block_size;
  const int64_t blocks = kv_tokens > 0 ? (kv_tokens + d.block_size - 1) / d.block_size
                                       : kDefaultSequences * per_sequence;
  pool_ = std::make_unique<KvPool>(d.num_layers, blocks + 1, d.bytes_per_block);
  engine_ = std::make_unique<Engine>(*graph_, *pool_,
                                     EngineLimits{d.vocab_size, d.max_seq_len, d.block_size,
                                                  blocks * d.block_size, threads_, model_});
}

Engine& Package::engine() {
  if (!engine_) bad_input(archive_.path() + " is not a decoder's package; it generates no text");
  return *engine_;
}

Results Package::run(const std::vector<Array>& inputs) {
  if (engine_)
    bad_input(archive_.path() + " is a decoder's package; make a session to generate with it");
  check_inputs(manifest_.signature, inputs);
  std::optional<Results> results;
  worker_->run([&] {
    const StepTrace step(tracing() ? describe(inputs) : StepFacts{});
    results.emplace(graph_->run(inputs));
  });
  return std::move(*results);
}

// All of a text is read at once, and an encoder's tokens see all of their sequence.
StepFacts Package::describe(const std::vector<Array>& inputs) const {
  StepFacts facts{.model = model_, .prefill = true};
  if (manifest_.kind != Kind::encoder) return facts;
  const Array& query_start = inputs[3];
  const auto* start = static_cast<const int64_t*>(query_start.data);
  facts.tokens = facts.context = inputs[0].shape[0];
  facts.sequences = query_start.shape[0] - 1;
  for (int64_t b = 0; b < facts.sequences; b++)
    facts.pairs += (start[b + 1] - start[b]) * (start[b + 1] - start[b]);
  return facts;
}

void Package::embed(const int64_t* tokens, const size_t* lengths, size_t count, float* embeddings) {
  if (manifest_.kind != Kind::encoder)
    bad_input(archive_.path() + " is not an encoder's package; it makes no embeddings");
  ingot::embed(
      manifest_.embedding, [this](const std::vector<Array>& inputs) { return run(inputs); }, tokens,
      lengths, count, embeddings);
}

// The best level that this CPU has.
const Variant& Package::choose_variant() const {
  const int level = isa_level();
  const Variant* best = nullptr;
  std::string offered;
  for (const Variant& variant : manifest_.variants) {
    offered += (offered.empty() ? "" : ", ") + variant.isa;
    const int needed = parse_isa(variant.isa);
    if (needed && needed <= level && (!best || needed > parse_isa(best->isa))) best = &variant;
  }
  if (!best)
    bad_package(archive_.path() + " is built for " + offered + ", this CPU runs x86-64-v" +
                std::to_string(level) + "; export it again with --isa x86-64-v" +
                std::to_string(level));
  if (!best->requires_symbols.empty())
    bad_package(archive_.path() + " needs libtorch (for " + best->requires_symbols[0] +
                "); run it with backend=\"torch\"");
  return *best;
}

void Package::check_ops() const {
  for (const auto& [name, schema] : manifest_.ops) {
    const char* ours = op_schema(name.c_str());
    if (!ours || schema != ours)
      bad_package(archive_.path() + " calls the op " + schema + ", this library has " +
                  (ours ? ours : "none of that name") +
                  "; export it again, or use the Ingot that made it");
  }
}

void Package::check_entry(const std::string& name) const {
  const auto fact = manifest_.entries.find(name);
  const std::string_view data = archive_.entry(name);
  if (fact == manifest_.entries.end() || fact->second.bytes != data.size() ||
      fact->second.sha256 != sha256(data))
    bad_package(archive_.path() + " is damaged: " + name +
                " does not have the hash that its manifest states; copy or export it again");
}

Code Package::checked_code(const std::string& name, const char* what) const {
  check_entry(name);
  return {archive_.entry(name), manifest_.entries.at(name).sha256, what};
}

std::string_view Package::token_bytes(int64_t token) const {
  if (!archive_.has("ingot/token_bytes.bin"))
    bad_input(archive_.path() + " has no tokenizer; use token ids");
  const std::string_view table = archive_.entry("ingot/token_bytes.bin");
  const auto word = [&](uint64_t index) {
    uint32_t value = 0;
    if ((index + 1) * 4 > table.size()) bad_package(archive_.path() + ": token table is cut short");
    std::memcpy(&value, table.data() + index * 4, 4);
    return uint64_t{value};
  };
  const uint64_t count = word(0);
  if (token < 0 || static_cast<uint64_t>(token) >= count)
    bad_input("token id " + std::to_string(token) + " is out of range; the table has " +
              std::to_string(count));
  const uint64_t text = (count + 2) * 4, begin = word(1 + token), end = word(2 + token);
  if (begin > end || text > table.size() || end > table.size() - text)
    bad_package(archive_.path() + ": the token table is damaged; export it again");
  return table.substr(text + begin, end - begin);
}

double Package::measure_read(size_t bytes) const {
  bytes = std::min(std::max<size_t>(bytes, 1 << 20), weights_.size());
  return ingot::measure_read(weights_.data(), bytes, threads_);
}
}  // namespace ingot

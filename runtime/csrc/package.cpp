#include "package.h"

#include <algorithm>
#include <optional>

#include "cpu.h"
#include "embed.h"
#include "error.h"
#include "host.h"
#include "measure.h"
#include "sha256.h"
#include "token_table.h"

namespace ingot {
namespace {
constexpr int32_t kMostThreads = 1024;    // OpenMP ends the process where it cannot have them
constexpr int64_t kDefaultSequences = 8;  // full-length ones; memory is committed as it is used
constexpr int64_t kMostTokens = int64_t{1} << 40;  // products stay in range

// Why none of the variants runs, after the package's name. The CPU is asked by feature: where it
// has all of them, it is INGOT_ISA that does not allow more.
std::string no_variant(const std::vector<Variant>& variants, int level) {
  std::string offered;
  int least = 0;
  for (const Variant& variant : variants) {
    offered += (offered.empty() ? "" : ", ") + variant.isa;
    const int needed = parse_isa(variant.isa);
    if (needed && (!least || needed < least)) least = needed;
  }
  const std::string missing = missing_features(least), own = "x86-64-v" + std::to_string(level);
  const std::string why = !missing.empty() ? ", this CPU runs " + own + ": it lacks " + missing
                          : least          ? ", INGOT_ISA allows " + own + " at most"
                                           : ", this CPU runs " + own;
  return " has code for " + offered + why + "; export it again with --isa " + own;
}

// What the manifest cannot list, or need not: constant, or the signatures of the manifest itself.
bool is_unlisted(const std::string& entry) {
  return entry == "ingot/manifest.json" || entry == "ingot/signature.json" ||
         entry == "archive_format" || entry == "byteorder";
}

// A copy of the manifest, which has the hash that is wanted, if any is.
std::string pinned(std::string_view manifest, const char* wanted, const std::string& path) {
  std::string copy(manifest);
  if (wanted && sha256(copy) != wanted)
    bad_package(path + " is not the package that was asked for: its manifest's SHA-256 is " +
                sha256(copy) + ", not " + wanted);
  return copy;
}
}  // namespace

Package::Package(const std::string& path, const ingot_options& options)
    : archive_(path),
      manifest_json_(pinned(archive_.entry("ingot/manifest.json"), options.manifest_sha256, path)),
      manifest_(parse_manifest(manifest_json_, path)),
      model_(lasting(manifest_.card)),
      threads_(options.threads) {
  if (options.threads < 0 || options.threads > kMostThreads)
    bad_input("threads must be 0 to " + std::to_string(kMostThreads) + "; 0 means the default");
  if (options.kv_tokens < 0 || options.kv_tokens > kMostTokens)
    bad_input("kv_tokens must be 0 to " + std::to_string(kMostTokens) + "; 0 means the default");
  const Variant& variant = choose_variant();
  variant_ = variant.name;
  check_ops();
  weights_ = archive_.entry("ingot/weights.bin");
  if (options.copy_weights) {
    copy_ = std::make_unique<WeightsCopy>(weights_);
    weights_ = copy_->view();
  }
  if (options.verify_weights) check_all_entries();
  const Code code = checked_code(variant.entry, "the code");
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
  uint64_t pairs = 0;  // may wrap: the op that refuses such starts comes later
  for (int64_t b = 0; b < facts.sequences; b++) {
    const uint64_t length = static_cast<uint64_t>(start[b + 1]) - static_cast<uint64_t>(start[b]);
    pairs += length * length;
  }
  facts.pairs = static_cast<int64_t>(pairs);
  return facts;
}

void Package::embed(const int64_t* tokens, const size_t* lengths, size_t count, float* embeddings) {
  if (manifest_.kind != Kind::encoder)
    bad_input(archive_.path() + " is not an encoder's package; it makes no embeddings");
  ingot::embed(
      manifest_.embedding, [this](const std::vector<Array>& inputs) { return run(inputs); }, tokens,
      lengths, count, embeddings);
}

// The best level that this process may run.
const Variant& Package::choose_variant() const {
  const int level = isa_level();
  const Variant* best = nullptr;
  for (const Variant& variant : manifest_.variants) {
    const int needed = parse_isa(variant.isa);
    if (needed && needed <= level && (!best || needed > parse_isa(best->isa))) best = &variant;
  }
  if (!best) bad_package(archive_.path() + no_variant(manifest_.variants, level));
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

void Package::check_all_entries() const {
  for (const auto& [name, data] : archive_.entries())
    if (!is_unlisted(name)) check_entry(name, name == "ingot/weights.bin" ? weights_ : data);
  for (const auto& [name, fact] : manifest_.entries) archive_.entry(name);
}

void Package::check_entry(const std::string& name, std::string_view data) const {
  const auto fact = manifest_.entries.find(name);
  if (fact == manifest_.entries.end() || fact->second.bytes != data.size() ||
      fact->second.sha256 != sha256(data))
    bad_package(archive_.path() + " is damaged: " + name +
                " does not have the hash that its manifest states; copy or export it again");
}

Code Package::checked_code(const std::string& name, const char* what) const {
  std::string bytes(archive_.entry(name));
  check_entry(name, bytes);
  return {std::move(bytes), manifest_.entries.at(name).sha256, what};
}

std::string_view Package::token_bytes(int64_t token) const {
  if (!archive_.has("ingot/token_bytes.bin"))
    bad_input(archive_.path() + " has no tokenizer; use token ids");
  return ingot::token_bytes(archive_.entry("ingot/token_bytes.bin"), token, archive_.path());
}

double Package::measure_read(size_t bytes) const {
  bytes = std::min(std::max<size_t>(bytes, 1 << 20), weights_.size());
  return ingot::measure_read(weights_.data(), bytes, threads_);
}
}  // namespace ingot

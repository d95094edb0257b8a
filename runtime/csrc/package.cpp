#include "package.h"

#include <algorithm>
#include <optional>

#include "cpu.h"
#include "cuda/architecture.h"
#include "embed.h"
#include "error.h"
#include "host.h"
#include "measure.h"
#include "pages.h"
#include "sha256.h"
#include "token_table.h"

namespace ingot {
namespace {
constexpr int32_t kMostThreads = 1024;    // OpenMP ends the process where it cannot have them
constexpr int64_t kDefaultSequences = 8;  // full-length ones; memory is committed as it is used
constexpr int64_t kStepTokens = 256, kGpuStepTokens = 2048;
// A prompt alone: longer steps read the weights less often. Their temporaries, about 0.1 MB a
// token, are to stay a few hundredths of the weights.
constexpr int64_t kLoneStepTokens = 512, kLargeWeights = 500'000'000;
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

// Of an encoder's inputs. On the CPU the op that follows these looks itself; in a GPU's memory it
// cannot.
void check_query_start(const Array& query_start, int64_t tokens) {
  const auto* start = static_cast<const int64_t*>(query_start.data);
  const int64_t count = query_start.shape[0];
  bool rises = start[0] == 0 && start[count - 1] <= tokens;
  for (int64_t b = 1; b < count; b++) rises &= start[b] >= start[b - 1];
  if (!rises)
    bad_input("input query_start must rise from 0 to at most " + std::to_string(tokens) +
              ", the number of tokens");
}

const Variant* best_for_cpu(const std::vector<Variant>& variants, int level) {
  const Variant* best = nullptr;
  for (const Variant& variant : variants) {
    const int needed = parse_isa(variant.isa);
    if (needed && needed <= level && (!best || needed > parse_isa(best->isa))) best = &variant;
  }
  return best;
}

const Variant* best_for_gpu(const std::vector<Variant>& variants, int capability) {
  const Variant* best = nullptr;
  int highest = 0;
  for (const Variant& variant : variants) {
    const auto architecture = cuda::parse_architecture(variant.gpu_architecture);
    if (!cuda::runs_on(architecture, capability) || architecture.capability < highest) continue;
    best = &variant;
    highest = architecture.capability;
  }
  return best;
}

std::string no_gpu_variant(const std::vector<Variant>& variants, const cuda::DeviceFacts& gpu) {
  std::string offered;
  for (const Variant& variant : variants)
    offered += (offered.empty() ? "" : " and ") + variant.gpu_architecture;
  const std::string own = std::to_string(gpu.capability);
  return " is for " + offered + ", this GPU (" + gpu.name + ") is sm_" + own +
         "; export it again with --cuda-arch " + own;
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
  if (manifest_.on_gpu) start_gpu();
  const Variant& variant = choose_variant();
  variant_ = variant.name;
  check_ops();
  weights_ = archive_.entry("ingot/weights.bin");
  if (options.copy_weights && gpu_)
    bad_input("copy_weights is for packages of the CPU; " + path +
              " has its weights in the GPU's memory: leave it out");
  if (options.copy_weights) {
    copy_ = std::make_unique<WeightsCopy>(weights_);
    weights_ = copy_->view();
  }
  if (options.verify_weights) check_all_entries();
  const Code code = checked_code(variant.entry, "the code");
  std::vector<Code> libraries;
  for (const std::string& entry : manifest_.op_libraries)
    libraries.push_back(checked_code(entry, "an op library"));
  const Weights weights = place_weights(options);
  const auto make = [&] {
    return std::make_unique<Graph>(code, libraries, weights, manifest_, path);
  };
  graph_ = gpu_ ? gpu_->load(make) : make();
  if (gpu_)
    run_graph_ = gpu_->runs(*graph_, manifest_);
  else
    run_graph_ = [this](const std::vector<Array>& inputs) {
      map_weights_ahead();
      return graph_->run(inputs);
    };
  thread_ = StepThread::of(threads_);
  if (manifest_.kind == Kind::decoder) start_engine(options.kv_tokens);
}

Package::~Package() = default;

// What the GPU and the host refuse is said before anything is read.
void Package::start_gpu() {
  threads_ = 1;  // the step thread waits for the GPU
  try {
    gpu_ = std::make_unique<cuda::Backend>();
  } catch (const Error& error) {
    throw Error(error.status, archive_.path() + " is for a GPU: " + error.what());
  }
  const int ours = open_cuda_host(), drivers = cuda::driver_version();
  if (drivers / 1000 < ours / 1000)  // a minor version more is compatible
    bad_package(archive_.path() + " is for a GPU: this machine's driver knows CUDA " +
                cuda::version_text(drivers) + ", and Ingot's kernels are of CUDA " +
                cuda::version_text(ours) + "; install a newer driver from NVIDIA");
  if (host().controls_watch_data())
    bad_input("the controls that are on read tensors of the CPU, and " + archive_.path() +
              " is for a GPU; turn off stats, null-kernels, dump and capture");
}

Weights Package::place_weights(const ingot_options& options) {
  if (!gpu_) return {const_cast<char*>(weights_.data()), weights_.size()};
  cuda::Progress progress;
  if (options.progress)
    progress = [&](uint64_t done, uint64_t total) {
      options.progress(done, total, options.progress_user);
    };
  return gpu_->upload(weights_, progress);
}

// Before the first step. But for the table at the beginning, of which a decoder and an encoder read
// the rows of their tokens alone.
void Package::map_weights_ahead() {
  if (weights_are_mapped_ || copy_) return;
  weights_are_mapped_ = true;
  const HostTrace mapping("map weights");
  size_t table = 0;
  for (const auto& [name, constant] : manifest_.constants)
    if (constant.offset == 0) table = std::min<size_t>(constant.bytes, weights_.size());
  map_ahead(weights_.substr(table));
}

// As many as asked for, or as eight of the longest sequences take; of a GPU's memory, which is
// taken at once, no more than there is room for.
int64_t Package::cache_blocks(int64_t kv_tokens) const {
  const DecoderFacts& d = manifest_.decoder;
  if (kv_tokens > 0) return (kv_tokens + d.block_size - 1) / d.block_size;
  const int64_t per_sequence = (d.max_seq_len + d.block_size - 1) / d.block_size;
  const int64_t wanted = kDefaultSequences * per_sequence;
  if (!gpu_) return wanted;
  const int64_t room = gpu_->room_for(d.num_layers * d.bytes_per_block) - 1;
  return std::clamp<int64_t>(room, 1, wanted);
}

int64_t Package::lone_step_tokens() const {
  if (gpu_) return kGpuStepTokens;
  return static_cast<int64_t>(weights_.size()) < kLargeWeights ? kStepTokens : kLoneStepTokens;
}

void Package::start_engine(int64_t kv_tokens) {
  const DecoderFacts& d = manifest_.decoder;
  const int64_t blocks = cache_blocks(kv_tokens), all = blocks + 1;
  if (gpu_)
    pool_ = std::make_unique<KvPool>(
        d.num_layers, all, d.bytes_per_block,
        gpu_->make_cache(KvPool::bytes_of(d.num_layers, all, d.bytes_per_block)));
  else
    pool_ = std::make_unique<KvPool>(d.num_layers, all, d.bytes_per_block);
  engine_ = std::make_unique<Engine>(
      run_graph_, *pool_,
      EngineLimits{d.vocab_size, d.max_seq_len, d.block_size, blocks * d.block_size,
                   gpu_ ? kGpuStepTokens : kStepTokens, lone_step_tokens(), model_},
      *thread_);
}

Engine& Package::engine() {
  if (!engine_) bad_input(archive_.path() + " is not a decoder's package; it generates no text");
  return *engine_;
}

Results Package::run(const std::vector<Array>& inputs) {
  if (engine_)
    bad_input(archive_.path() + " is a decoder's package; make a session to generate with it");
  check_inputs(manifest_.signature, inputs);
  if (gpu_ && manifest_.kind == Kind::encoder) check_query_start(inputs[3], inputs[0].shape[0]);
  std::optional<Results> results;
  thread_->run([&] {
    const StepTrace step(tracing() ? describe(inputs) : StepFacts{});
    results.emplace(run_graph_(inputs));
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

// The best level or architecture that this process may run.
const Variant& Package::choose_variant() const {
  const int level = isa_level();
  const Variant* best = gpu_ ? best_for_gpu(manifest_.variants, gpu_->facts().capability)
                             : best_for_cpu(manifest_.variants, level);
  if (!best)
    bad_package(archive_.path() + (gpu_ ? no_gpu_variant(manifest_.variants, gpu_->facts())
                                        : no_variant(manifest_.variants, level)));
  if (gpu_ && !best->isa.empty() && parse_isa(best->isa) > level)
    bad_package(archive_.path() + no_variant({*best}, level));
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
  if (gpu_) return 0;  // steps do not read from there
  bytes = std::min(std::max<size_t>(bytes, 1 << 20), weights_.size());
  double rate = 0;
  thread_->run([&] {  // another team would wait for the cores of the steps'
    rate = ingot::measure_read(weights_.data(), bytes, kTeamOfCaller);
  });
  return rate;
}
}  // namespace ingot

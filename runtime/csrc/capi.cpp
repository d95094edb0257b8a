// The C border: exceptions become status codes and a sentence; nothing is thrown across it.
#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <new>
#include <string_view>

#include "cuda/describe.h"
#include "engine.h"
#include "error.h"
#include "host.h"
#include "ingot.h"
#include "measure.h"
#include "package.h"
#include "score.h"
#include "team.h"
#include "trace.h"

struct ingot_package : ingot::Package {
  using ingot::Package::Package;
  std::shared_ptr<ingot_package> self;  // the opener's hold; each session has another
};
struct ingot_results : ingot::Results {
  explicit ingot_results(ingot::Results&& results) : ingot::Results(std::move(results)) {}
};
struct ingot_session {
  std::shared_ptr<ingot_package> package;
  ingot::Sequence sequence;
};

namespace {
thread_local std::string last_error;

// One line that a terminal can show, for a sentence may quote what a stranger wrote.
void remember(std::string_view sentence) noexcept {
  constexpr size_t kMost = 2000;
  try {
    last_error = sentence.substr(0, kMost);
    for (char& c : last_error)
      if (static_cast<unsigned char>(c) < ' ' || c == '\x7f') c = ' ';
    if (sentence.size() > kMost) last_error += " ...";
  } catch (const std::bad_alloc&) {
    last_error.clear();
  }
}

template <class Body>
ingot_status guarded(Body body) {
  try {
    body();
    return INGOT_OK;
  } catch (const ingot::Error& error) {
    remember(error.what());
    return error.status;
  } catch (const std::bad_alloc&) {
    remember("out of memory");
    return INGOT_NO_SPACE;
  } catch (const std::exception& error) {
    remember(error.what());
    return INGOT_FAILED;
  } catch (...) {  // of generated code, or of the caller's callback
    remember("something was thrown that is no exception");
    return INGOT_FAILED;
  }
}

void need(const void* pointer, const char* argument) {
  if (!pointer) ingot::bad_input(std::string(argument) + " is NULL");
}

// Of tokens that are refused none is read: their count may be a negative number that was converted.
void check_tokens(const ingot_session* session, const int64_t* tokens, size_t count) {
  need(session, "session");
  if (count) need(tokens, "tokens");
  const auto longest = static_cast<size_t>(session->package->manifest().decoder.max_seq_len);
  if (count > longest)
    ingot::bad_input("the prompt is too long: " + std::to_string(count) + " tokens, where the " +
                     "package takes " + std::to_string(longest) +
                     " in all; shorten it, or export with a larger --max-seq-len");
}

// For ingot_free.
char* copied(std::string_view text) {
  auto* copy = static_cast<char*>(std::malloc(text.size() + 1));
  if (!copy) throw std::bad_alloc();
  std::memcpy(copy, text.data(), text.size());
  copy[text.size()] = '\0';
  return copy;
}

// The caller's struct, as much of it as the caller knows, over our defaults.
template <class T>
T known(const T* given, T defaults) {
  if (given) {
    if (given->struct_bytes < sizeof(size_t) || given->struct_bytes > sizeof(T))
      ingot::bad_input("struct_bytes is not the size of a struct this library knows");
    std::memcpy(&defaults, given, given->struct_bytes);
  }
  return defaults;
}

// As much of it as the caller knows.
void report(const ingot::Job& job, size_t prompt, ingot_stats* stats) {
  if (!stats) return;
  const ingot_stats all{stats->struct_bytes, static_cast<int64_t>(prompt), job.made_count,
                        job.first_token - job.submitted, job.last_token - job.first_token};
  std::memcpy(stats, &all, stats->struct_bytes);
}

void refuse_cancelled(const ingot::Job& job) {
  if (job.cancelled)
    throw ingot::Error(INGOT_CANCELLED, "stopped by the token callback, or by closing the session");
}

ingot::Job generate_job(ingot_session* session, const int64_t* tokens, size_t count,
                        const ingot_sampling& sampling) {
  check_tokens(session, tokens, count);
  if (sampling.stop_count) need(sampling.stop_tokens, "stop_tokens");
  if (sampling.max_new_tokens < 1) ingot::bad_input("max_new_tokens must be at least 1");
  if (!(sampling.temperature >= 0)) ingot::bad_input("temperature must not be negative");
  if (sampling.top_k < 0) ingot::bad_input("top_k must not be negative; 0 turns it off");
  if (!(sampling.top_p > 0 && sampling.top_p <= 1)) ingot::bad_input("top_p must be in (0, 1]");
  ingot::Job job;
  job.sequence = &session->sequence;
  job.tokens.assign(tokens, tokens + count);
  job.max_new_tokens = sampling.max_new_tokens;
  job.sampler.emplace(
      ingot::SamplerSettings{sampling.temperature, sampling.top_k, sampling.top_p, sampling.seed});
  if (!sampling.ignore_eos) job.stop_tokens = session->package->manifest().decoder.eos_token_ids;
  job.stop_tokens.insert(job.stop_tokens.end(), sampling.stop_tokens,
                         sampling.stop_tokens + sampling.stop_count);
  return job;
}

// Appends tokens; `take` gets the logits after the last `rows` of them.
void run_for_logits(ingot_session* session, const int64_t* tokens, size_t count, size_t rows,
                    std::function<void(const float*, int64_t)> take) {
  const auto package = session->package;  // the session may be closed meanwhile
  ingot::Job job;
  job.sequence = &session->sequence;
  job.tokens.assign(tokens, tokens + count);
  job.take_logits = std::move(take);
  job.logit_rows = rows;
  package->engine().run(job, [](int64_t) { return true; });
  refuse_cancelled(job);
}

void refuse(const char* sentence) {
  if (sentence) ingot::bad_input(sentence);
}

void check_targets(const int64_t* targets, size_t target_count, size_t count, int64_t vocab_size) {
  if (target_count < 1 || target_count > count)
    ingot::bad_input(std::to_string(target_count) + " targets for " + std::to_string(count) +
                     " tokens; give at least one, and at most one a token");
  for (size_t i = 0; i < target_count; i++)
    if (targets[i] < 0 || targets[i] >= vocab_size)
      ingot::bad_input("target " + std::to_string(targets[i]) +
                       " is out of range; the model has ids 0 to " +
                       std::to_string(vocab_size - 1));
}
}  // namespace

const char* ingot_version(void) { return INGOT_VERSION; }
const char* ingot_last_error(void) { return last_error.c_str(); }

ingot_status ingot_package_open(const char* path, const ingot_options* options,
                                ingot_package** package) {
  return guarded([&] {
    need(path, "path");
    need(package, "package");
    auto opened = std::make_shared<ingot_package>(
        path, known(options, {sizeof(ingot_options), 0, 0, 0, 0, nullptr, nullptr, nullptr}));
    *package = opened.get();
    opened->self = opened;
  });
}
void ingot_package_close(ingot_package* package) {
  if (!package || package->in_child()) return;
  const std::shared_ptr<ingot_package> held = std::move(package->self);
}
const char* ingot_package_manifest(const ingot_package* package) {
  return package ? package->manifest_json() : nullptr;
}
const char* ingot_package_variant(const ingot_package* package) {
  return package->variant().c_str();
}

ingot_status ingot_package_entry(const ingot_package* package, const char* name, const void** data,
                                 size_t* bytes) {
  return guarded([&] {
    need(package, "package");
    need(name, "name");
    need(data, "data");
    need(bytes, "bytes");
    if (!package->archive().has(name))
      ingot::bad_input(std::string("the package has no entry ") + name);
    const std::string_view entry = package->archive().entry(name);
    *data = entry.data();
    *bytes = entry.size();
  });
}

ingot_status ingot_package_token_bytes(const ingot_package* package, int64_t token,
                                       const char** data, size_t* bytes) {
  return guarded([&] {
    need(package, "package");
    need(data, "data");
    need(bytes, "bytes");
    const std::string_view piece = package->token_bytes(token);
    *data = piece.data();
    *bytes = piece.size();
  });
}

ingot_status ingot_read_manifest(const char* path, char** json) {
  return guarded([&] {
    need(path, "path");
    need(json, "json");
    const ingot::Archive archive(path);
    const std::string_view manifest = archive.entry("ingot/manifest.json");
    ingot::parse_manifest(manifest, path);
    *json = copied(manifest);
  });
}
void ingot_free(void* memory) { std::free(memory); }

ingot_status ingot_session_create(ingot_package* package, ingot_session** session) {
  return guarded([&] {
    need(package, "package");
    need(session, "session");
    package->engine();  // refuses where there is none
    *session = new ingot_session{package->self, {}};
  });
}
void ingot_session_close(ingot_session* session) {
  if (!session || session->package->in_child()) return;
  session->package->engine().release(session->sequence);
  delete session;
}
void ingot_session_reset(ingot_session* session) {
  if (!session || session->package->in_child()) return;
  session->package->engine().release(session->sequence);
}
int64_t ingot_session_length(const ingot_session* session) {
  if (!session || session->package->in_child()) return 0;
  return session->package->engine().length(session->sequence);
}

void ingot_end_openmp_team(void) { ingot::end_own_team(); }

ingot_status ingot_session_generate(ingot_session* session, const int64_t* tokens, size_t count,
                                    const ingot_sampling* sampling, ingot_token_callback callback,
                                    void* user, ingot_stats* stats) {
  return guarded([&] {
    need(session, "session");
    known<ingot_stats>(stats, {});          // refuses before anything runs
    const auto package = session->package;  // the session may be closed meanwhile
    ingot::Job job =
        generate_job(session, tokens, count,
                     known(sampling, {sizeof(ingot_sampling), 256, 0, 0, 1, 0, 0, nullptr, 0}));
    package->engine().run(job,
                          [&](int64_t token) { return !callback || callback(token, user) == 0; });
    report(job, count, stats);
    refuse_cancelled(job);
  });
}

ingot_status ingot_session_logits(ingot_session* session, const int64_t* tokens, size_t count,
                                  float* logits) {
  return guarded([&] {
    check_tokens(session, tokens, count);
    if (count) need(logits, "logits");
    const int64_t vocab_size = session->package->manifest().decoder.vocab_size;
    run_for_logits(session, tokens, count, count, [&](const float* made, int64_t rows) {
      logits = std::copy_n(made, rows * vocab_size, logits);
    });
  });
}

ingot_status ingot_session_score(ingot_session* session, const int64_t* tokens, size_t count,
                                 const int64_t* targets, size_t target_count, double* log_probs) {
  return guarded([&] {
    check_tokens(session, tokens, count);
    if (target_count) need(targets, "targets");
    if (target_count) need(log_probs, "log_probs");
    const int64_t vocab_size = session->package->manifest().decoder.vocab_size;
    check_targets(targets, target_count, count, vocab_size);
    run_for_logits(session, tokens, count, target_count, [&](const float* made, int64_t rows) {
      ingot::log_probabilities(made, rows, vocab_size, targets, log_probs);
      targets += rows;
      log_probs += rows;
    });
  });
}

ingot_status ingot_run(ingot_package* package, const ingot_array* inputs, size_t count,
                       ingot_results** results) {
  return guarded([&] {
    need(package, "package");
    need(results, "results");
    if (count) need(inputs, "inputs");
    std::vector<ingot::Array> arrays;
    const size_t read = std::min(count, package->manifest().signature.inputs.size() + 1);
    for (size_t i = 0; i < read; i++) {  // one too many is refused as any number is
      if (inputs[i].ndim) need(inputs[i].shape, "an input's shape");
      if (inputs[i].ndim < 0 || inputs[i].ndim > 8)
        ingot::bad_input("input " + std::to_string(i) + " has " + std::to_string(inputs[i].ndim) +
                         " dimensions; at most 8 work");
      arrays.push_back(
          {inputs[i].data, inputs[i].dtype, {inputs[i].shape, inputs[i].shape + inputs[i].ndim}});
    }
    *results = new ingot_results(package->run(arrays));
  });
}
size_t ingot_results_count(const ingot_results* results) { return results ? results->count() : 0; }
ingot_status ingot_results_get(const ingot_results* results, size_t index, ingot_array* array) {
  return guarded([&] {
    need(results, "results");
    need(array, "array");
    if (index >= results->count())
      ingot::bad_input("there is no result " + std::to_string(index) + " of " +
                       std::to_string(results->count()));
    const ingot::Array& found = results->array(index);
    *array = {found.data, found.scalar_type, static_cast<int32_t>(found.shape.size()),
              found.shape.data()};
  });
}
void ingot_results_free(ingot_results* results) { delete results; }

ingot_status ingot_embed(ingot_package* package, const int64_t* tokens, const size_t* lengths,
                         size_t count, float* embeddings) {
  return guarded([&] {
    need(package, "package");
    if (count) need(tokens, "tokens");
    if (count) need(lengths, "lengths");
    if (count) need(embeddings, "embeddings");
    package->embed(tokens, lengths, count, embeddings);
  });
}

void ingot_trace_start(void) {
  guarded([] { ingot::trace_start(); });
}
ingot_status ingot_trace_write(const char* path) {
  return guarded([&] {
    need(path, "path");
    ingot::trace_write(path);
  });
}

ingot_status ingot_control_get(size_t index, ingot_control* control) {
  return guarded([&] {
    need(control, "control");
    const ingot_host_control* row = ingot::host().control(index);
    if (!row) ingot::bad_input("there is no control " + std::to_string(index));
    *control = {row->name, row->variable, row->value, row->meaning};
  });
}
ingot_status ingot_control_set(const char* name, const char* value) {
  return guarded([&] {
    need(name, "name");
    need(value, "value");
    refuse(ingot::host().control_set(name, value));
  });
}
ingot_status ingot_controls_report(void) {
  return guarded([&] { refuse(ingot::host().controls_report()); });
}

ingot_status ingot_gpus(char** json) {
  return guarded([&] {
    need(json, "json");
    *json = copied(ingot::cuda::describe_gpus());
  });
}

double ingot_measure_read(ingot_package* package, size_t bytes) {
  double rate = 0;
  guarded([&] {
    need(package, "package");
    rate = package->measure_read(bytes);
  });
  return rate;
}
double ingot_measure_memory(const void* data, size_t bytes, int32_t threads) {
  return data ? ingot::measure_read(data, bytes, threads) : 0;
}
double ingot_measure_peak(const char* factor, int32_t threads) {
  double rate = 0;
  guarded([&] {
    need(factor, "factor");
    rate = ingot::measure_peak(factor, threads);
  });
  return rate;
}

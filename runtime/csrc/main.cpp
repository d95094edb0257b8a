// ingot-run: generates from a package, from C++ alone.
#include <time.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <cstdio>
#include <fstream>
#include <iostream>
#include <memory>
#include <nlohmann/json.hpp>
#include <sstream>
#include <string>
#include <vector>

#include "ingot.h"

namespace {
using nlohmann::json;

struct Failure {
  ingot_status status;
  std::string sentence;
};
void check(ingot_status status) {
  if (status != INGOT_OK && status != INGOT_CANCELLED) throw Failure{status, ingot_last_error()};
}

struct Options {
  std::string package, tokens_file, trace;
  std::vector<std::string> controls;
  std::vector<int64_t> tokens;
  int64_t max_new_tokens = 64;
  float temperature = -1, top_p = -1;  // below zero: as the package says
  int32_t top_k = -1, threads = 0;
  uint64_t seed = 0;
  bool ignore_eos = false, copy_weights = false, as_json = false;
};

double now_ms() {
  timespec now;
  clock_gettime(CLOCK_BOOTTIME, &now);
  return now.tv_sec * 1e3 + now.tv_nsec / 1e6;
}

// When the kernel started this process, on the clock of now_ms: field 22 of /proc/self/stat, in
// ticks.
double process_start_ms() {
  std::ifstream file("/proc/self/stat");
  std::string text((std::istreambuf_iterator<char>(file)), {});
  std::istringstream fields(text.substr(text.rfind(')') + 2));
  std::string field;
  for (int i = 3; i <= 22; i++) fields >> field;
  return std::stod(field) * 1e3 / static_cast<double>(sysconf(_SC_CLK_TCK));
}

// VmHWM of /proc/self/status. getrusage would begin with that of the process which started this
// one.
double peak_rss_mb() {
  std::ifstream file("/proc/self/status");
  for (std::string word; file >> word;)
    if (word == "VmHWM:") return file >> word ? std::stod(word) / 1024 : 0;
  return 0;
}

Options parse(int argc, char** argv) {
  Options o;
  CLI::App app("Generate from an Ingot package.\n\n  ingot-run model.pt2 --tokens 1,2,3 --json");
  app.add_option("package", o.package, "Package file (.pt2)")->required();
  auto* tokens = app.add_option("--tokens", o.tokens, "Prompt as token ids: 1,2,3")->delimiter(',');
  app.add_option("--tokens-file", o.tokens_file, "File of token ids, separated by space or comma")
      ->excludes(tokens);
  app.add_option("--max-new-tokens", o.max_new_tokens, "Tokens to generate at most")
      ->capture_default_str();
  app.add_option("--temperature", o.temperature, "0: greedy")->check(CLI::NonNegativeNumber);
  app.add_option("--top-k", o.top_k, "Sample from the k likeliest; 0: off")
      ->check(CLI::NonNegativeNumber);
  app.add_option("--top-p", o.top_p, "Sample from the likeliest that hold this mass; 1: off")
      ->check(CLI::Range(0.0, 1.0));
  app.add_option("--seed", o.seed, "Seed of the sampler");
  app.add_option("--threads", o.threads, "Threads of a step; 0: the cores that are free");
  app.add_flag("--copy-weights", o.copy_weights,
               "To memory of this process alone, in huge pages: slower to open, may run faster");
  app.add_option("--trace", o.trace, "Write a Chrome trace here");
  app.add_option("--control", o.controls,
                 "NAME[=VALUE], as often as you like: watch or change what generated code calls "
                 "(docs/controls.md)")
      ->allow_extra_args(false);
  app.add_flag("--ignore-eos", o.ignore_eos, "Do not stop at stop ids");
  app.add_flag("--json", o.as_json, "Print one JSON object");
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    if (error.get_exit_code() == 0) std::exit(app.exit(error));
    throw Failure{INGOT_BAD_INPUT, error.what() + std::string("; see ingot-run --help")};
  }
  return o;
}

void set_control(const std::string& setting) {
  const size_t name = setting.find('=');
  const std::string value = name == std::string::npos ? "1" : setting.substr(name + 1);
  check(ingot_control_set(setting.substr(0, name).c_str(), value.c_str()));
}

std::vector<int64_t> prompt(const Options& o) {
  if (o.tokens_file.empty()) {
    if (o.tokens.empty()) throw Failure{INGOT_BAD_INPUT, "give --tokens 1,2,3 or --tokens-file"};
    return o.tokens;
  }
  std::ifstream file(o.tokens_file);
  if (!file) throw Failure{INGOT_BAD_INPUT, "cannot read " + o.tokens_file};
  std::string text((std::istreambuf_iterator<char>(file)), {});
  for (char& c : text)
    if (c == ',') c = ' ';
  std::istringstream words(text);
  std::vector<int64_t> tokens;
  for (std::string word; words >> word;) {
    size_t used = 0;
    try {
      tokens.push_back(std::stoll(word, &used));
    } catch (const std::exception&) {
    }
    if (used != word.size())
      throw Failure{INGOT_BAD_INPUT, o.tokens_file + ": '" + word + "' is not a token id"};
  }
  return tokens;
}

// The package's own defaults where no option was given.
ingot_sampling sampling(const Options& o, const json& generation) {
  const bool sampled = generation.value("do_sample", false);
  ingot_sampling s{};
  s.struct_bytes = sizeof s;
  s.max_new_tokens = o.max_new_tokens;
  s.temperature = o.temperature >= 0 ? o.temperature
                  : sampled          ? generation.value("temperature", 1.0f)
                                     : 0.0f;
  s.top_k = o.top_k >= 0 ? o.top_k : generation.value("top_k", 0);
  s.top_p = o.top_p >= 0 ? o.top_p : generation.value("top_p", 1.0f);
  s.seed = o.seed;
  s.ignore_eos = o.ignore_eos;
  return s;
}

struct Output {
  ingot_package* package;
  bool has_text, stream;
  double first_token_ms = 0;
  std::string text;
  std::vector<int64_t> tokens;
};

int32_t take_token(int64_t token, void* user) {
  Output& out = *static_cast<Output*>(user);
  if (out.tokens.empty()) out.first_token_ms = now_ms();
  const size_t before = out.text.size();
  const char* data = nullptr;
  size_t bytes = 0;
  if (out.has_text && ingot_package_token_bytes(out.package, token, &data, &bytes) == INGOT_OK)
    out.text.append(data, bytes);
  else if (!out.has_text)
    out.text += (out.tokens.empty() ? "" : ",") + std::to_string(token);
  out.tokens.push_back(token);
  if (out.stream) {
    std::fwrite(out.text.data() + before, 1, out.text.size() - before, stdout);
    std::fflush(stdout);
  }
  return 0;
}

void print_json(const Output& out, const ingot_stats& stats, double load_ms, double started_ms) {
  const auto rate = [](double count, double seconds) {
    return seconds > 0 ? count / seconds : 0.0;
  };
  const json result = {{"text", out.has_text ? out.text : ""},
                       {"tokens", out.tokens},
                       {"prompt_tokens", stats.prompt_tokens},
                       {"prefill_tok_s", rate(stats.prompt_tokens, stats.prefill_seconds)},
                       {"decode_tok_s", rate(stats.new_tokens - 1, stats.decode_seconds)},
                       {"load_ms", load_ms},
                       {"first_token_ms", out.first_token_ms - started_ms},
                       {"peak_rss_mb", peak_rss_mb()}};
  std::cout << result.dump(-1, ' ', false, json::error_handler_t::replace) << "\n";
}

void run(const Options& o) {
  const double started = process_start_ms(), loading = now_ms();
  const std::vector<int64_t> tokens = prompt(o);
  for (const std::string& setting : o.controls) set_control(setting);
  const ingot_options options{sizeof options, o.threads, 0, 0, o.copy_weights};
  ingot_package* opened = nullptr;
  check(ingot_package_open(o.package.c_str(), &options, &opened));
  const std::unique_ptr<ingot_package, void (*)(ingot_package*)> package(opened,
                                                                         ingot_package_close);
  const double load_ms = now_ms() - loading;
  const json manifest = json::parse(ingot_package_manifest(opened));
  if (!o.trace.empty()) ingot_trace_start();
  ingot_session* created = nullptr;
  check(ingot_session_create(opened, &created));
  const std::unique_ptr<ingot_session, void (*)(ingot_session*)> session(created,
                                                                         ingot_session_close);
  Output out{opened, manifest.value("tokenizer", false), !o.as_json, 0, "", {}};
  const ingot_sampling settings = sampling(o, manifest.at("generation"));
  ingot_stats stats{};
  stats.struct_bytes = sizeof stats;
  check(ingot_session_generate(created, tokens.data(), tokens.size(), &settings, take_token, &out,
                               &stats));
  if (!o.trace.empty()) check(ingot_trace_write(o.trace.c_str()));
  if (o.as_json)
    print_json(out, stats, load_ms, started);
  else
    std::printf("\n");
}
}  // namespace

int main(int argc, char** argv) {
  try {
    run(parse(argc, argv));
    check(ingot_controls_report());
    return 0;
  } catch (const Failure& failure) {
    std::fprintf(stderr, "ingot: %s\n", failure.sentence.c_str());
    return failure.status == INGOT_FAILED ? 1 : 2;
  } catch (const std::exception& error) {
    std::fprintf(stderr, "ingot: unexpected: %s\n", error.what());
    return 1;
  }
}

// ingot-run: generates from a package, from C++ alone.
#include <time.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <iostream>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>
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
  std::optional<std::string> manifest_sha256;  // even if empty, it is to be that
  std::vector<std::string> controls;
  std::optional<std::string> tokens;
  int64_t max_new_tokens = 64;
  float temperature = -1, top_p = -1;  // below zero: as the package says
  int32_t top_k = -1, threads = 0;
  uint64_t seed = 0;
  bool ignore_eos = false, verify = false, copy_weights = false, as_json = false;
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

// Comparisons let NaN through.
const CLI::Validator kFinite(
    [](std::string& text) {
      return text.find_first_of("nN") == std::string::npos ? "" : text + " is no number";
    },
    "FINITE");

Options parse(int argc, char** argv) {
  Options o;
  CLI::App app("Generate from an Ingot package.\n\n  ingot-run model.pt2 --tokens 1,2,3 --json");
  app.add_option("package", o.package, "Package file (.pt2)")->required();
  auto* tokens = app.add_option("--tokens", o.tokens, "Prompt as token ids: 1,2,3");
  app.add_option("--tokens-file", o.tokens_file, "File of token ids, separated by space or comma")
      ->excludes(tokens);
  app.add_option("--max-new-tokens", o.max_new_tokens, "Tokens to generate at most")
      ->capture_default_str();
  app.add_option("--temperature", o.temperature, "0: greedy")
      ->check(CLI::NonNegativeNumber & kFinite);
  app.add_option("--top-k", o.top_k, "Sample from the k likeliest; 0: off")
      ->check(CLI::NonNegativeNumber);
  app.add_option("--top-p", o.top_p, "Sample from the likeliest that hold this mass; 1: off")
      ->check(CLI::Range(0.0, 1.0) & kFinite);
  app.add_option("--seed", o.seed, "Seed of the sampler")->check(CLI::NonNegativeNumber);
  app.add_option("--threads", o.threads, "Threads of a step; 0: the cores that are free");
  app.add_flag("--copy-weights", o.copy_weights,
               "To memory of this process alone, in huge pages: slower to open, may run faster");
  app.add_flag("--verify", o.verify, "Hash all of the package first, the weights too");
  app.add_option("--manifest-sha256", o.manifest_sha256,
                 "What 'ingot verify' printed: run no other package. With --verify it pins all");
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

// Token ids with commas or space between; `where` is for a sentence.
std::vector<int64_t> parse_tokens(std::string text, const std::string& where) {
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
    if (used != word.size()) {
      for (char& c : word)
        if (c < ' ') c = '?';  // what is no text would break the sentence, or end it
      throw Failure{INGOT_BAD_INPUT, where + ": '" + word.substr(0, 40) + "' is not a token id"};
    }
  }
  if (tokens.empty()) throw Failure{INGOT_BAD_INPUT, where + " has no token ids; give 1,2,3"};
  return tokens;
}

std::vector<int64_t> prompt(const Options& o) {
  if (o.tokens) return parse_tokens(*o.tokens, "--tokens");
  if (o.tokens_file.empty()) throw Failure{INGOT_BAD_INPUT, "give --tokens 1,2,3 or --tokens-file"};
  std::ifstream file(o.tokens_file);
  std::error_code error;
  if (!file || std::filesystem::is_directory(o.tokens_file, error))
    throw Failure{INGOT_BAD_INPUT, "cannot read " + o.tokens_file + "; give a file of token ids"};
  return parse_tokens({std::istreambuf_iterator<char>(file), {}}, o.tokens_file);
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
  size_t printed = 0;  // bytes of `text`
};

// Control characters as \xNN, but for newlines and tabs: a terminal would obey them.
std::string printable(std::string_view text) {
  std::string shown;
  for (size_t i = 0; i < text.size(); i++) {
    auto c = static_cast<unsigned char>(text[i]);
    const unsigned char next = i + 1 < text.size() ? static_cast<unsigned char>(text[i + 1]) : 0;
    const bool c1 = c == 0xc2 && next >= 0x80 && next < 0xa0;  // U+0080 to U+009F in UTF-8
    if (c1) c = next, i++;
    if (c1 || c == 0x7f || (c < 0x20 && c != '\n' && c != '\t')) {
      char escape[5];
      std::snprintf(escape, sizeof escape, "\\x%02x", c);
      shown += escape;
    } else {
      shown += text[i];
    }
  }
  return shown;
}

// What is new in the text. On a terminal, the first half of what may be a control waits.
void print(Output& out, bool all) {
  static const bool on_terminal = isatty(STDOUT_FILENO);
  size_t end = out.text.size();
  if (on_terminal && !all && end > out.printed && out.text[end - 1] == '\xc2') end--;
  const std::string_view fresh = std::string_view(out.text).substr(out.printed, end - out.printed);
  const std::string shown = on_terminal ? printable(fresh) : std::string(fresh);
  std::fwrite(shown.data(), 1, shown.size(), stdout);
  std::fflush(stdout);
  out.printed = end;
}

int32_t take_token(int64_t token, void* user) {
  Output& out = *static_cast<Output*>(user);
  if (out.tokens.empty()) out.first_token_ms = now_ms();
  const char* data = nullptr;
  size_t bytes = 0;
  if (out.has_text && ingot_package_token_bytes(out.package, token, &data, &bytes) == INGOT_OK)
    out.text.append(data, bytes);
  else if (!out.has_text)
    out.text += (out.tokens.empty() ? "" : ",") + std::to_string(token);
  out.tokens.push_back(token);
  if (out.stream) print(out, false);
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
                       {"variant", ingot_package_variant(out.package)},
                       {"load_ms", load_ms},
                       {"first_token_ms", out.first_token_ms - started_ms},
                       {"peak_rss_mb", peak_rss_mb()}};
  std::cout << result.dump(-1, ' ', false, json::error_handler_t::replace)
            << std::endl;  // before all is taken down
}

// In one line that goes when all is there. Calls come some dozen times a second.
void show_progress(uint64_t done, uint64_t total, void*) {
  std::fprintf(stderr, "\rweights to the GPU: %d %%", static_cast<int>(100 * done / total));
  if (done == total) std::fprintf(stderr, "\r\033[K");
}

void run(const Options& o) {
  const double started = process_start_ms(), loading = now_ms();
  const std::vector<int64_t> tokens = prompt(o);
  for (const std::string& setting : o.controls) set_control(setting);
  ingot_options options{};
  options.struct_bytes = sizeof options;
  options.threads = o.threads;
  options.verify_weights = o.verify;
  options.copy_weights = o.copy_weights;
  options.manifest_sha256 = o.manifest_sha256 ? o.manifest_sha256->c_str() : nullptr;
  if (isatty(STDERR_FILENO) && !o.as_json) options.progress = show_progress;
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
  if (o.as_json) {
    print_json(out, stats, load_ms, started);
  } else {
    print(out, true);
    std::printf("\n");
  }
  // The stream remembers a failure of any write before.
  if (std::fflush(stdout) != 0 || std::ferror(stdout))
    throw Failure{INGOT_BAD_INPUT, "cannot write the output; is there room where it goes?"};
}
}  // namespace

int main(int argc, char** argv) {
  try {
    run(parse(argc, argv));
    check(ingot_controls_report());
    return 0;
  } catch (const Failure& failure) {
    std::fprintf(stderr, "ingot: %s\n", printable(failure.sentence).c_str());
    return failure.status == INGOT_FAILED ? 1 : 2;
  } catch (const std::exception& error) {
    std::fprintf(stderr, "ingot: unexpected: %s\n", error.what());
    return 1;
  }
}

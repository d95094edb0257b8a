// dump and capture: op calls written to files, in the one form that `ingot replay` reads.
//
// A file holds the tensors by their names in the op's schema: inputs as they were before the call,
// outputs, and as "<name>.after" what the call changed. `call.json` says what they belong to.
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cinttypes>
#include <cmath>
#include <cstring>
#include <optional>
#include <thread>

#include "control.h"
#include "npz.h"
#include "ops_api.h"
#include "text.h"

namespace ingot::host {
namespace {
constexpr int64_t kMostFiles = 1000;

// Which calls: "linear_w4@3-5:after".
struct Selection {
  std::string op;
  int64_t first = 1, last = INT64_MAX;
  bool before = true, after = true;

  bool has(const Op& call) const {
    return (op == "*" || op == call.call.name) && call.number >= first && call.number <= last;
  }
};

std::string ops_there_are() {
  std::string names;
  for (int32_t i = 0; i < ingot_ops_count(); i++)
    names += (i ? ", " : "") + std::string(ingot_ops_name(i));
  return names;
}

const char* schema_of(const char* op) {
  for (int32_t i = 0; i < ingot_ops_count(); i++)
    if (std::strcmp(ingot_ops_name(i), op) == 0) return ingot_ops_schema(i);
  return nullptr;
}

[[noreturn]] void refuse(const std::string& control, const std::string& value) {
  const bool dump = control == "dump";
  throw ControlError(control + "=" + value + " names no calls; write " +
                     (dump ? "OP, OP@3, OP@3-5, OP:before or OP@3:after, or * for any OP"
                           : "OP, or OP@3 for its third call") +
                     ", with OP of " + ops_there_are());
}

// A whole number from 1 at `text`, or 0.
int64_t take_number(std::string_view& text) {
  int64_t number = 0;
  size_t digits = 0;
  for (; digits < text.size() && digits < 18 && text[digits] >= '0' && text[digits] <= '9';
       digits++)
    number = number * 10 + (text[digits] - '0');
  text.remove_prefix(digits);
  return number;
}

Selection parse(const std::string& control, const std::string& value) {
  Selection chosen;
  std::string_view rest = value;
  chosen.op = rest.substr(0, rest.find_first_of("@:"));
  rest.remove_prefix(chosen.op.size());
  if (rest.starts_with('@')) {
    rest.remove_prefix(1);
    chosen.first = chosen.last = take_number(rest);
    if (rest.starts_with('-')) {
      rest.remove_prefix(1);
      chosen.last = take_number(rest);
    }
  }
  if (rest == ":before") chosen.after = false;
  if (rest == ":after") chosen.before = false;
  const bool ends = rest.empty() || !chosen.after || !chosen.before;
  const bool known = chosen.op == "*" || schema_of(chosen.op.c_str());
  if (!ends || !known || chosen.first < 1 || chosen.last < chosen.first) refuse(control, value);
  return chosen;
}

std::string setting_or(const Settings& settings, const char* name, const char* otherwise) {
  const auto found = settings.find(name);
  return found == settings.end() ? otherwise : found->second;
}

std::string quoted(const char* text) {
  std::string json = "\"";
  for (; *text; text++) {
    if (*text == '"' || *text == '\\') json += '\\';
    json += *text;
  }
  return json + "\"";
}

std::string list(const int64_t* values, int32_t count) {
  std::string json = "[";
  for (int32_t i = 0; i < count; i++) json += (i ? ", " : "") + std::to_string(values[i]);
  return json + "]";
}

// Python's JSON reads and writes infinities and NaN by these names.
std::string number(double value) {
  if (std::isnan(value)) return "NaN";
  if (std::isinf(value)) return value > 0 ? "Infinity" : "-Infinity";
  char text[32];
  std::snprintf(text, sizeof text, "%.17g", value);
  return text;
}

bool is_tensor(const OpArgument& argument) {
  return argument.value && std::strncmp(argument.type, "Tensor", 6) == 0;
}
const DLTensor& tensor_of(const OpArgument& argument) {
  return *static_cast<const DLTensor*>(argument.value);
}

std::string argument_json(const OpArgument& argument) {
  const std::string_view type = argument.type;
  std::string json = "{\"name\": " + quoted(argument.name) + ", \"type\": " + quoted(argument.type);
  if (is_tensor(argument)) {
    const DLTensor& tensor = tensor_of(argument);
    return json + ", \"dtype\": " + quoted(dtype_name(tensor.dtype).c_str()) +
           ", \"shape\": " + list(tensor.shape, tensor.ndim) +
           ", \"strides\": " + list(tensor.strides, tensor.ndim) + "}";
  }
  json += ", \"value\": ";
  const void* value = argument.value;
  if (!value) return json + "null}";
  if (type.starts_with("int"))
    return json + std::to_string(*static_cast<const int64_t*>(value)) + "}";
  if (type.starts_with("float")) return json + number(*static_cast<const double*>(value)) + "}";
  if (type == "bool") return json + (*static_cast<const int32_t*>(value) ? "true}" : "false}");
  return json + quoted(static_cast<const char*>(value)) + "}";
}

// One call's file; inputs first, then what came of them.
class CallFile {
 public:
  explicit CallFile(const std::string& path) : file_(path) {}

  void add_inputs(const OpCall& call) {
    for (int32_t i = 0; i < call.count - call.outputs; i++)
      if (is_tensor(call.arguments[i]))
        file_.add(call.arguments[i].name, tensor_of(call.arguments[i]));
  }
  void add_results(const OpCall& call) {
    for (int32_t i = 0; i < call.count; i++) {
      const OpArgument& argument = call.arguments[i];
      const bool output = i >= call.count - call.outputs;
      if (is_tensor(argument) && std::strcmp(argument.type, "Tensor!") == 0)
        file_.add(argument.name + std::string(output ? "" : ".after"), tensor_of(argument));
    }
  }
  // `part`: "before", "after", or "call" where all of it is there.
  void finish(const Op& op, const char* part) {
    const OpCall& call = op.call;
    const char* level = ingot_ops_level();
    std::string json = "{\"format_version\": 1, \"op\": " + quoted(call.name) +
                       ", \"schema\": " + quoted(schema_of(call.name)) +
                       ", \"part\": " + quoted(part) + ", \"call\": " + std::to_string(op.number) +
                       ", \"run\": " + std::to_string(op.run.number) +
                       ", \"level\": " + quoted(level ? level : "") +
                       ", \"outputs\": " + std::to_string(call.outputs) + ", \"arguments\": [";
    for (int32_t i = 0; i < call.count; i++)
      json += (i ? ", " : "") + argument_json(call.arguments[i]);
    file_.add_text("call.json", json + "]}");
    file_.finish();
  }

 private:
  NpzWriter file_;
};

// A file that cannot be written ends the control, not the run; the sentence comes at the end.
class Writes : public Control {
 public:
  Writes(uint32_t interests) : Control(interests) {}
  void report() override {
    if (!problem_.empty()) throw ControlError(problem_);
  }

 protected:
  template <class Body>
  void attempt(Body body) {
    if (!problem_.empty()) return;
    try {
      body();
    } catch (const ControlError& error) {
      problem_ = error.what();
    }
  }
  std::string problem_;
};

class Dump : public Writes {
 public:
  Dump(Selection calls, std::string folder)
      : Writes(kOps | kData), calls_(std::move(calls)), folder_(std::move(folder)) {
    if (mkdir(folder_.c_str(), 0777) != 0 && errno != EEXIST) refuse_folder(std::strerror(errno));
    struct stat found;
    if (stat(folder_.c_str(), &found) != 0 || !S_ISDIR(found.st_mode))
      refuse_folder("it is not a folder");
    if (access(folder_.c_str(), W_OK | X_OK) != 0) refuse_folder(std::strerror(errno));
  }

  void op_begins(const Op& op) override {
    if (!calls_.before || !calls_.has(op)) return;
    write(op, "before", [&](CallFile& file) { file.add_inputs(op.call); });
  }
  void op_ends(const Op& op, int64_t) override {
    if (!calls_.after || !calls_.has(op)) return;
    write(op, "after", [&](CallFile& file) { file.add_results(op.call); });
  }

 private:
  [[noreturn]] void refuse_folder(const char* reason) const {
    throw ControlError("dump: cannot write to " + folder_ + " (" + reason +
                       "); name a folder with dump-to");
  }
  template <class Add>
  void write(const Op& op, const char* part, Add add) {
    attempt([&] {
      if (++files_ > kMostFiles)
        throw ControlError("dump stopped after " + std::to_string(kMostFiles) +
                           " files; name fewer calls, as OP@1-9");
      CallFile file(folder_ + "/" + op.call.name + "-" + std::to_string(op.number) + "." + part +
                    ".npz");
      add(file);
      file.finish(op, part);
    });
  }

  Selection calls_;
  std::string folder_;
  int64_t files_ = 0;
};

class Capture : public Writes {
 public:
  Capture(Selection call, std::string path)
      : Writes(kOps | kData), call_(std::move(call)), path_(std::move(path)) {
    NpzWriter probe(path_);  // refuses a place that cannot be written before anything runs
  }

  void op_begins(const Op& op) override {
    if (call_.op == op.call.name) seen_ = op.number;
    if (!call_.has(op)) return;
    attempt([&] {
      file_.emplace(path_);
      file_->add_inputs(op.call);
    });
  }
  void op_ends(const Op& op, int64_t) override {
    if (!call_.has(op) || !file_) return;
    attempt([&] {
      file_->add_results(op.call);
      file_->finish(op, "call");
      done_ = true;
    });
    file_.reset();
  }
  void report() override {
    Writes::report();
    if (!done_)
      throw ControlError("capture: there was no call " + call_.op + "@" +
                         std::to_string(call_.first) + "; the op was called " +
                         std::to_string(seen_) + " times");
  }

 private:
  Selection call_;
  std::string path_;
  std::optional<CallFile> file_;
  int64_t seen_ = 0;
  bool done_ = false;
};
}  // namespace

std::unique_ptr<Control> make_dump(const Settings& settings) {
  return std::make_unique<Dump>(parse("dump", settings.at("dump")),
                                setting_or(settings, "dump-to", "ingot-dump"));
}

std::unique_ptr<Control> make_capture(const Settings& settings) {
  const std::string& value = settings.at("capture");
  Selection call = parse("capture", value);
  if (value.find('@') == std::string::npos) call.last = call.first;
  if (call.op == "*" || call.last != call.first || !call.before || !call.after)
    refuse("capture", value);
  return std::make_unique<Capture>(std::move(call), setting_or(settings, "capture-to", "call.npz"));
}
}  // namespace ingot::host

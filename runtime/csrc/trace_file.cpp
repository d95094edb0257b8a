// The format: "Trace Event Format", Google: complete events ("X"), counters ("C") and the names of
// process and threads ("M"), times in microseconds; docs/trace.md.
#include "trace_file.h"

#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <map>
#include <nlohmann/json.hpp>
#include <string_view>
#include <utility>
#include <vector>

#include "error.h"
#include "host.h"

namespace ingot {
namespace {
using nlohmann::json;

// Appears under its name when it is whole. What is no regular file, a pipe or a device, is written
// in place.
class File {
 public:
  explicit File(const std::string& path) : path_(path), target_(path) {
    struct stat found;
    const bool is_special = stat(path.c_str(), &found) == 0 && !S_ISREG(found.st_mode);
    if (!is_special) target_ = path + "." + std::to_string(getpid()) + ".partial";
    if (!is_special) std::remove(target_.c_str());
    file_ = std::fopen(target_.c_str(), is_special ? "we" : "wex");  // x: never through a link
  }
  ~File() {
    if (file_) std::fclose(file_);
    if (target_ != path_) std::remove(target_.c_str());  // gone if it was renamed
  }
  void write(const std::string& text) {
    if (file_) std::fwrite(text.data(), 1, text.size(), file_);
  }
  void finish() {
    bool whole = file_ && !std::ferror(file_);
    if (file_) whole &= std::fclose(std::exchange(file_, nullptr)) == 0;
    if (whole && target_ != path_) whole = std::rename(target_.c_str(), path_.c_str()) == 0;
    if (!whole)
      bad_input("cannot write the trace to " + path_ +
                "; choose a folder that exists and has room");
  }

 private:
  const std::string path_;
  std::string target_;
  std::FILE* file_;
};

// Writes events, and remembers which thread did what.
class Writer {
 public:
  explicit Writer(File& file) : file_(file) {}

  void span(const char* name, const char* category, int64_t start_ns, int64_t end_ns,
            int32_t thread, const json& args = nullptr) {
    json event = common(name, "X", start_ns);
    event["cat"] = category;
    event["tid"] = thread;
    event["dur"] = static_cast<double>(end_ns - start_ns) / 1e3;
    if (!args.is_null()) event["args"] = args;
    add(event);
    if (!names_.count(thread)) names_[thread] = "thread";
    if (category == std::string("step")) names_[thread] = "step thread";
    if (category == std::string("request")) names_[thread] = "caller";
  }
  void counter(const char* name, int64_t at_ns, const json& values) {
    json event = common(name, "C", at_ns);
    event["args"] = values;
    add(event);
  }
  void metadata() {
    add_name("process_name", 0, "ingot");
    for (const auto& [thread, name] : names_) add_name("thread_name", thread, name);
  }

 private:
  json common(const char* name, const char* phase, int64_t at_ns) const {
    return {
        {"name", name}, {"ph", phase}, {"pid", process_}, {"ts", static_cast<double>(at_ns) / 1e3}};
  }
  void add_name(const char* what, int32_t thread, const std::string& name) {
    add({{"name", what},
         {"ph", "M"},
         {"pid", process_},
         {"tid", thread},
         {"args", {{"name", name}}}});
  }
  void add(const json& event) {
    file_.write((first_ ? "\n" : ",\n") + event.dump());
    first_ = false;
  }

  File& file_;
  const int process_ = getpid();
  bool first_ = true;
  std::map<int32_t, std::string> names_;
};

struct Taken {
  TraceEvent event;
  int32_t thread;
};

// Ours, by the time at which they began.
std::vector<Taken> take_events() {
  std::vector<Taken> taken;
  TraceEvents::collect(
      [&](const TraceEvent& event, int32_t thread) { taken.push_back({event, thread}); });
  const auto start = [](const Taken& t) {
    return std::visit([](const auto& event) { return event.start_ns; }, t.event);
  };
  std::ranges::stable_sort(taken, {}, start);
  return taken;
}

struct EventWriter {
  Writer& writer;
  int32_t thread = 0;
  int64_t step = 0;

  void operator()(const StepEvent& e) {
    const StepFacts& f = e.facts;
    json args = {{"step", step++}, {"phase", f.prefill ? "prefill" : "decode"}};
    if (f.sequences)  // of a module, whose sizes have names of their own
      args.update({{"tokens", f.tokens},
                   {"sequences", f.sequences},
                   {"rows", f.rows},
                   {"blocks", f.blocks},
                   {"context", f.context},
                   {"pairs", f.pairs}});
    writer.span("step", "step", e.start_ns, e.end_ns, thread, args);
    if (f.kv_total)
      writer.counter("kv", e.end_ns, {{"blocks_used", f.kv_used}, {"blocks_total", f.kv_total}});
  }
  void operator()(const HostEvent& e) { writer.span(e.name, "host", e.start_ns, e.end_ns, thread); }
  void operator()(const RequestEvent& e) {
    json args = {{"prompt_tokens", e.facts.prompt_tokens}, {"new_tokens", e.facts.new_tokens}};
    if (e.facts.first_token_ns) args["first_token_us"] = e.facts.first_token_ns / 1e3;
    writer.span("generate", "request", e.start_ns, e.end_ns, thread, args);
  }
  void operator()(const MemoryEvent& e) {
    writer.counter("memory", e.start_ns, {{"rss_mb", e.resident_kb / 1024.0}});
  }
};

// The card of the model whose steps these are; nothing where several ran.
json header(const std::vector<Taken>& events) {
  const char* model = nullptr;
  bool one = true;
  for (const Taken& taken : events)
    if (const auto* step = std::get_if<StepEvent>(&taken.event)) {
      one &= !model || model == step->facts.model;
      model = step->facts.model;
    }
  json found = {
      {"format_version", 1}, {"engine", "ingot"}, {"environment", {{"ingot", INGOT_VERSION}}}};
  if (model && one) {
    found["model"] = json::parse(model);
    found["name"] = found["model"].value("name", "");
  }
  return found;
}

void write_call(const ingot_host_event* call, void* writer) {
  const bool is_op = std::string_view(call->name).starts_with("aoti_torch_");
  static_cast<Writer*>(writer)->span(call->name, is_op ? "op" : "kernel", call->start_ns,
                                     call->start_ns + call->duration_ns, call->thread);
}
}  // namespace

void write_trace_file(const std::string& path) {
  const std::vector<Taken> events = take_events();
  File file(path);
  file.write("{\"displayTimeUnit\":\"ms\",\n\"ingot\":" + header(events).dump() +
             ",\n\"traceEvents\":[");
  Writer writer(file);
  EventWriter each{writer};
  for (const Taken& taken : events) {
    each.thread = taken.thread;
    std::visit(each, taken.event);
  }
  host().trace_collect(write_call, &writer);
  writer.metadata();
  file.write("\n]}\n");
  file.finish();
}
}  // namespace ingot

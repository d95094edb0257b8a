// The format: "Trace Event Format", Google, complete events ("ph": "X"), times in microseconds.
#include "trace.h"

#include <time.h>
#include <unistd.h>

#include <atomic>
#include <cstdio>
#include <mutex>
#include <nlohmann/json.hpp>
#include <vector>

#include "error.h"
#include "host.h"

namespace ingot {
namespace {
struct Step {
  int64_t start_ns, duration_ns, tokens, sequences;
  int32_t thread;
};
std::atomic<bool> tracing{false};
std::mutex mutex;
std::vector<Step> steps;

int64_t now_ns() {
  timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return int64_t{1'000'000'000} * now.tv_sec + now.tv_nsec;
}

nlohmann::json event(const std::string& name, const char* category, int64_t start_ns,
                     int64_t duration_ns, int32_t thread) {
  return {{"name", name},
          {"cat", category},
          {"ph", "X"},
          {"pid", getpid()},
          {"tid", thread},
          {"ts", start_ns / 1e3},
          {"dur", duration_ns / 1e3}};
}

void take_kernel(const ingot_host_event* kernel, void* events) {
  static_cast<nlohmann::json*>(events)->push_back(
      event(kernel->name, "kernel", kernel->start_ns, kernel->duration_ns, kernel->thread));
}
}  // namespace

void trace_start() {
  std::lock_guard lock(mutex);
  steps.clear();
  host().trace_collect([](const ingot_host_event*, void*) {}, nullptr);
  host().trace_enable(1);
  tracing = true;
}

void trace_write(const std::string& path) {
  tracing = false;
  host().trace_enable(0);
  nlohmann::json events = nlohmann::json::array();
  {
    std::lock_guard lock(mutex);
    for (const Step& step : steps) {
      events.push_back(event("step", "step", step.start_ns, step.duration_ns, step.thread));
      events.back()["args"] = {{"tokens", step.tokens}, {"sequences", step.sequences}};
    }
  }
  host().trace_collect(take_kernel, &events);
  const nlohmann::json document = {{"displayTimeUnit", "ms"}, {"traceEvents", events}};
  const std::string text = document.dump();
  std::FILE* file = std::fopen(path.c_str(), "w");
  const bool written = file && std::fwrite(text.data(), 1, text.size(), file) == text.size();
  if (!file || (std::fclose(file) != 0) || !written)
    bad_input("cannot write the trace to " + path + "; choose a folder that exists and has room");
}

StepTrace::StepTrace(int64_t tokens, int64_t sequences)
    : tokens_(tokens), sequences_(sequences), start_ns_(tracing ? now_ns() : 0) {}

StepTrace::~StepTrace() {
  if (!start_ns_) return;
  const int64_t duration = now_ns() - start_ns_;
  std::lock_guard lock(mutex);
  steps.push_back({start_ns_, duration, tokens_, sequences_, static_cast<int32_t>(gettid())});
}
}  // namespace ingot

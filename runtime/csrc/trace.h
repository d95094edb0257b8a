// Run traces (docs/trace.md): steps, what the runtime does beside them, calls of sessions and
// counters from us; kernels and op calls from the host. Off, each object here costs one load.
#pragma once
#include <cstdint>
#include <string>

namespace ingot {
bool tracing();
void trace_start();
// Stops and writes the file, whole or not at all. Throws Error if it cannot be written.
void trace_write(const std::string& path);

// What a step computes; docs/trace.md has the names. Without a model it is not recorded: tracing
// was off when it was prepared.
struct StepFacts {
  const char* model = nullptr;  // JSON of the package's card, from `lasting`
  bool prefill = false;
  int64_t tokens = 0, sequences = 0, rows = 0, blocks = 0, context = 0, pairs = 0;
  int64_t kv_used = 0, kv_total = 0;  // blocks; total 0: there is no cache
};

struct RequestFacts {
  int64_t prompt_tokens, new_tokens, first_token_ns;  // 0: it made none
};

// A text that stays for ever: traces are written after packages are closed. Equal ones are one.
const char* lasting(const std::string& text);

// Brackets one run of the graph.
class StepTrace {
 public:
  explicit StepTrace(const StepFacts& facts);
  ~StepTrace();
  StepTrace(const StepTrace&) = delete;
  StepTrace& operator=(const StepTrace&) = delete;

 private:
  const StepFacts facts_;
  const uint64_t trace_;  // 0: none is recorded
  const int64_t start_ns_;
};

// Brackets what is not the graph's; `name` is a literal.
class HostTrace {
 public:
  explicit HostTrace(const char* name);
  ~HostTrace() { end(); }
  HostTrace(const HostTrace&) = delete;
  HostTrace& operator=(const HostTrace&) = delete;
  void end();

 private:
  const char* name_;
  uint64_t trace_;
  const int64_t start_ns_;
};

// One call of a session, seen by its caller: from submission to the last token.
void trace_request(int64_t start_ns, int64_t end_ns, const RequestFacts& facts);
}  // namespace ingot

#include "trace.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <charconv>
#include <mutex>
#include <set>

#include "clock.h"
#include "host.h"
#include "trace_file.h"

namespace ingot {
namespace {
std::atomic<uint64_t> current{0};                // number of the trace that is recorded; 0: none
std::atomic<int64_t> began_ns{0};                // when it began
constexpr int64_t kMemoryInterval = 10'000'000;  // ns; a reading takes some microseconds

uint64_t recorded() { return current.load(std::memory_order_acquire); }

// Whether what began under this trace ends under it: else kernels of it may be missing.
bool lasts(uint64_t trace) { return trace && recorded() == trace; }

int64_t resident_kb() {
  static const int file = open("/proc/self/statm", O_RDONLY | O_CLOEXEC);
  static const int64_t page_kb = sysconf(_SC_PAGESIZE) / 1024;
  char text[64];
  const ssize_t size = pread(file, text, sizeof text, 0);
  const char* const end = text + std::max<ssize_t>(size, 0);
  const char* const word = std::find<const char*>(text, end, ' ');
  int64_t pages = 0;  // the second number
  if (word != end) std::from_chars(word + 1, end, pages);
  return pages * page_kb;
}

std::atomic<int64_t> memory_noted{0};  // when; 0: not in this trace

void note_memory(int64_t now) {
  int64_t before = memory_noted.load(std::memory_order_relaxed);
  if (now - before < kMemoryInterval || !memory_noted.compare_exchange_strong(before, now)) return;
  TraceEvents::add(MemoryEvent{now, resident_kb()});
}
}  // namespace

bool tracing() { return recorded() != 0; }

void trace_start() {
  static std::atomic<uint64_t> count{0};
  current = 0;
  host().trace_enable(0);
  TraceEvents::collect([](const TraceEvent&, int32_t) {});
  host().trace_collect([](const ingot_host_event*, void*) {}, nullptr);
  host().trace_enable(1);
  began_ns = now_ns();
  memory_noted = 0;
  current.store(++count, std::memory_order_release);
}

void trace_write(const std::string& path) {
  current = 0;  // first: a step that ends now is not recorded, nor are all of its kernels
  host().trace_enable(0);
  write_trace_file(path);
}

const char* lasting(const std::string& text) {
  static std::mutex mutex;
  static auto* const texts = new std::set<std::string>;
  std::lock_guard lock(mutex);
  return texts->insert(text).first->c_str();
}

StepTrace::StepTrace(const StepFacts& facts)
    : facts_(facts), trace_(facts.model ? recorded() : 0), start_ns_(trace_ ? now_ns() : 0) {}

StepTrace::~StepTrace() {
  if (!lasts(trace_)) return;
  const int64_t end = now_ns();
  TraceEvents::add(StepEvent{start_ns_, end, facts_});
  note_memory(end);
}

HostTrace::HostTrace(const char* name)
    : name_(name), trace_(recorded()), start_ns_(trace_ ? now_ns() : 0) {}

void HostTrace::end() {
  if (lasts(trace_)) TraceEvents::add(HostEvent{name_, start_ns_, now_ns()});
  trace_ = 0;
}

void trace_request(int64_t start_ns, int64_t end_ns, const RequestFacts& facts) {
  if (recorded() && start_ns >= began_ns) TraceEvents::add(RequestEvent{start_ns, end_ns, facts});
}
}  // namespace ingot

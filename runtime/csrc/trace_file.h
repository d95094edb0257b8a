// The events of a trace, and its file.
#pragma once
#include <cstdint>
#include <string>
#include <variant>

#include "event_log.h"
#include "trace.h"

namespace ingot {
struct StepEvent {
  int64_t start_ns, end_ns;
  StepFacts facts;
};
struct HostEvent {
  const char* name;
  int64_t start_ns, end_ns;
};
struct RequestEvent {
  int64_t start_ns, end_ns;
  RequestFacts facts;
};
struct MemoryEvent {
  int64_t start_ns, resident_kb;
};
using TraceEvent = std::variant<HostEvent, StepEvent, RequestEvent, MemoryEvent>;
using TraceEvents = EventLog<TraceEvent>;

// Writes what was recorded since the last time, here and in the host. Throws Error.
void write_trace_file(const std::string& path);
}  // namespace ingot

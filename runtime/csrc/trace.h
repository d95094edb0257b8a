// Run traces: an event per step from us, per kernel and op call from the host, as Chrome trace
// events.
#pragma once
#include <cstdint>
#include <string>

namespace ingot {
void trace_start();
// Stops and writes the file. Throws Error if it cannot be written.
void trace_write(const std::string& path);

// Brackets one step of the graph.
class StepTrace {
 public:
  StepTrace(int64_t tokens, int64_t sequences);
  ~StepTrace();
  StepTrace(const StepTrace&) = delete;
  StepTrace& operator=(const StepTrace&) = delete;

 private:
  int64_t tokens_, sequences_, start_ns_;
};
}  // namespace ingot

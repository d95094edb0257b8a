// host-timing: how often each function was called and how long it took.
#include <algorithm>
#include <cinttypes>

#include "control.h"
#include "text.h"

namespace ingot::host {
namespace {
struct Times {
  int64_t calls = 0, total_ns = 0, least_ns = INT64_MAX, most_ns = 0;

  void add(int64_t ns) {
    calls++;
    total_ns += ns;
    least_ns = std::min(least_ns, ns);
    most_ns = std::max(most_ns, ns);
  }
};

class HostTiming : public Control {
 public:
  explicit HostTiming(const std::string& setting)
      : Control(kOps | kTensors | kKernels | kRuns), out_("host-timing", setting) {}

  void run_ends(const Run&, int64_t ns) override { times_["run"].add(ns); }
  void op_ends(const Op& op, int64_t ns) override { times_[op.call.name].add(ns); }
  void kernel_ends(const char* name, int64_t ns) override { times_[name].add(ns); }
  void timed(const TensorCall& call, int64_t ns) override { times_[call.function].add(ns); }
  void report() override {
    using Row = std::pair<std::string, Times>;
    std::vector<Row> rows(times_.begin(), times_.end());
    std::sort(rows.begin(), rows.end(),
              [](const Row& a, const Row& b) { return a.second.total_ns > b.second.total_ns; });
    out_.line("%10s %12s %10s %10s %10s  host-timing, ms: function", "calls", "total", "average",
              "least", "most");
    for (const auto& [name, t] : rows)
      out_.line("%10" PRId64 " %12s %10s %10s %10s  %s", t.calls, milliseconds(t.total_ns).c_str(),
                milliseconds(t.total_ns / t.calls).c_str(), milliseconds(t.least_ns).c_str(),
                milliseconds(t.most_ns).c_str(), name.c_str());
    out_.close();
  }

 private:
  Output out_;
  std::map<std::string, Times> times_;
};
}  // namespace

std::unique_ptr<Control> make_host_timing(const Settings& settings) {
  return std::make_unique<HostTiming>(settings.at("host-timing"));
}
}  // namespace ingot::host

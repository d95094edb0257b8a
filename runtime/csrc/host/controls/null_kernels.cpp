// null-kernels: ops compute nothing. Generated kernels cannot be left out, since their code calls
// itself; the time in them, and in zeroing outputs, is measured and taken off. What is left of a
// run is the host's overhead, and what measuring it costs.
#include <algorithm>

#include "control.h"
#include "text.h"

namespace ingot::host {
namespace {
class NullKernels : public Control {
 public:
  explicit NullKernels(const std::string& setting)
      : Control(kOps | kRuns | kData), out_("null-kernels", setting) {}

  bool computes(const Op&) override { return false; }
  void run_ends(const Run& run, int64_t ns) override {
    Sizes& all = runs_[run.first_input];
    all.overhead_ns.push_back(ns - run.kernels_ns - run.zeros_ns);
    all.kernels_ns.push_back(run.kernels_ns);
  }
  void report() override {
    out_.line("null-kernels, ms: %8s %10s %10s %10s %10s %10s  first input", "runs", "overhead",
              "least", "p90", "most", "kernels");
    for (auto& [sizes, run] : runs_) {
      std::string text;
      for (int64_t size : sizes) text += (text.empty() ? "" : ", ") + std::to_string(size);
      std::vector<int64_t>& ns = run.overhead_ns;
      std::sort(ns.begin(), ns.end());
      std::sort(run.kernels_ns.begin(), run.kernels_ns.end());
      out_.line("null-kernels, ms: %8zu %10s %10s %10s %10s %10s  [%s]", ns.size(),
                milliseconds(ns[ns.size() / 2]).c_str(), milliseconds(ns.front()).c_str(),
                milliseconds(ns[ns.size() * 9 / 10]).c_str(), milliseconds(ns.back()).c_str(),
                milliseconds(run.kernels_ns[ns.size() / 2]).c_str(), text.c_str());
    }
    out_.close();
  }

 private:
  struct Sizes {
    std::vector<int64_t> overhead_ns, kernels_ns;
  };
  Output out_;
  std::map<std::vector<int64_t>, Sizes> runs_;  // by the sizes of a run's first input
};
}  // namespace

std::unique_ptr<Control> make_null_kernels(const Settings& settings) {
  return std::make_unique<NullKernels>(settings.at("null-kernels"));
}
}  // namespace ingot::host

// leak-check: every tensor handle that is made must be freed.
#include <cinttypes>
#include <unordered_map>

#include "control.h"
#include "text.h"

namespace ingot::host {
namespace {
class LeakCheck : public Control {
 public:
  explicit LeakCheck(const std::string& setting) : Control(kTensors), out_("leak-check", setting) {}

  void tensor_made(const TensorCall& call, const Tensor& tensor) override {
    made_++;
    alive_[&tensor] = {call.function, call.kernel, call.run.number, describe(tensor)};
  }
  void tensor_ends(const TensorCall&, const Tensor& tensor) override {
    (alive_.erase(&tensor) ? freed_ : older_)++;
  }
  void report() override {
    std::map<std::string, int64_t> makers;
    for (const auto& [tensor, maker] : alive_) makers[maker.text()]++;
    out_.line("leak-check: %" PRId64 " handles made, %" PRId64 " freed, %zu not freed", made_,
              freed_, alive_.size());
    for (const auto& [text, count] : makers)
      out_.line("leak-check: not freed: %" PRId64 " of %s", count, text.c_str());
    if (older_)
      out_.line("leak-check: %" PRId64 " more were freed that were made before the check began",
                older_);
    out_.close();
  }

 private:
  struct Maker {
    const char* function;
    const char* kernel;
    int64_t run;
    std::string tensor;

    // Without the run's number: what leaks in each run is one line.
    std::string text() const {
      if (run == 0)
        return tensor + " by " + function +
               ", outside of any run: constants of a package that is still open";
      return tensor + " by " + function + (kernel ? std::string(" in ") + kernel : "") +
             " in a run";
    }
  };
  Output out_;
  std::unordered_map<const Tensor*, Maker> alive_;
  int64_t made_ = 0, freed_ = 0, older_ = 0;
};
}  // namespace

std::unique_ptr<Control> make_leak_check(const Settings& settings) {
  return std::make_unique<LeakCheck>(settings.at("leak-check"));
}
}  // namespace ingot::host

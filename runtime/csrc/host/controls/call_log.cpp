// call-log: a line for every op call, every tensor made and ended, every generated kernel.
#include <cinttypes>

#include "control.h"
#include "text.h"

namespace ingot::host {
namespace {
std::string argument_text(const OpArgument& argument) {
  const std::string_view type = argument.type;
  const void* value = argument.value;
  const std::string name = argument.name + std::string("=");
  if (!value) return name + "None";
  if (type.starts_with("Tensor")) return name + describe(*static_cast<const DLTensor*>(value));
  if (type.starts_with("int")) return name + std::to_string(*static_cast<const int64_t*>(value));
  if (type.starts_with("float")) return name + std::to_string(*static_cast<const double*>(value));
  if (type == "bool") return name + (*static_cast<const int32_t*>(value) ? "True" : "False");
  return name + "'" + static_cast<const char*>(value) + "'";
}

class CallLog : public Control {
 public:
  explicit CallLog(const std::string& setting)
      : Control(kOps | kTensors | kKernels | kRuns), out_("call-log", setting) {}

  void run_begins(const Run& run) override {
    std::string sizes;
    for (int64_t size : run.first_input)
      sizes += (sizes.empty() ? "" : ", ") + std::to_string(size);
    out_.line("run %" PRId64 " begins, first input [%s]", run.number, sizes.c_str());
  }
  void run_ends(const Run& run, int64_t ns) override {
    out_.line("run %" PRId64 " ends, %s ms", run.number, milliseconds(ns).c_str());
  }
  void op_ends(const Op& op, int64_t ns) override {
    const OpCall& call = op.call;
    std::string text;
    for (int32_t i = 0; i < call.count; i++) {
      if (i) text += i == call.count - call.outputs ? ") -> (" : ", ";
      text += argument_text(call.arguments[i]);
    }
    out_.line("  %s(%s), %s ms", op.name().c_str(), text.c_str(), milliseconds(ns).c_str());
  }
  void kernel_ends(const char* name, int64_t ns) override {
    out_.line("  %s, %s ms", name, milliseconds(ns).c_str());
  }
  void tensor_made(const TensorCall& call, const Tensor& tensor) override {
    out_.line("  %s -> %p %s", call.function, static_cast<const void*>(&tensor),
              describe(tensor).c_str());
  }
  void tensor_ends(const TensorCall& call, const Tensor& tensor) override {
    out_.line("  %s(%p)", call.function, static_cast<const void*>(&tensor));
  }
  void report() override { out_.close(); }

 private:
  Output out_;
};
}  // namespace

std::unique_ptr<Control> make_call_log(const Settings& settings) {
  return std::make_unique<CallLog>(settings.at("call-log"));
}
}  // namespace ingot::host

// stats: what the values of each op's inputs and outputs are like, to find where a NaN comes from.
#include <cinttypes>
#include <cmath>
#include <cstring>
#include <limits>

#include "control.h"
#include "elements.h"
#include "text.h"

namespace ingot::host {
namespace {
struct Values {
  double least = std::numeric_limits<double>::infinity(), largest = -least;  // of finite ones
  int64_t nans = 0, infinities = 0, count = 0;
};

template <class T>
T read(const char* data, int64_t i) {
  T value;
  std::memcpy(&value, data + i * sizeof value, sizeof value);
  return value;
}

template <class Get>
Values examine(int64_t count, Get get) {
  Values v;
  v.count = count;
  for (int64_t i = 0; i < count; i++) {
    const double value = get(i);
    if (std::isnan(value))
      v.nans++;
    else if (std::isinf(value))
      v.infinities++;
    else {
      v.least = std::min(v.least, value);
      v.largest = std::max(v.largest, value);
    }
  }
  return v;
}

float from_bfloat16(uint16_t bits) {
  const uint32_t wide = uint32_t{bits} << 16;
  float value;
  std::memcpy(&value, &wide, sizeof value);
  return value;
}

// Bytes are opaque (packed weights, the KV cache): their values mean nothing.
bool has_values(const DLTensor& tensor) {
  return tensor.dtype.code != kDLUInt && tensor.dtype.code != kDLBool && tensor.dtype.bits > 8;
}

Values examine(const DLTensor& tensor) {
  const Elements elements(tensor);
  const char* data = elements.data();
  const int64_t count = element_count(tensor);
  switch (tensor.dtype.code << 8 | tensor.dtype.bits) {
    case kDLFloat << 8 | 64:
      return examine(count, [=](int64_t i) { return read<double>(data, i); });
    case kDLFloat << 8 | 32:
      return examine(count, [=](int64_t i) { return read<float>(data, i); });
    case kDLFloat << 8 | 16:
      return examine(count, [=](int64_t i) { return read<_Float16>(data, i); });
    case kDLBfloat << 8 | 16:
      return examine(count, [=](int64_t i) { return from_bfloat16(read<uint16_t>(data, i)); });
    case kDLInt << 8 | 64:
      return examine(count, [=](int64_t i) { return read<int64_t>(data, i); });
    case kDLInt << 8 | 32:
      return examine(count, [=](int64_t i) { return read<int32_t>(data, i); });
    default:
      return examine(count, [=](int64_t i) { return read<int16_t>(data, i); });
  }
}

class Stats : public Control {
 public:
  explicit Stats(const std::string& setting)
      : Control(kOps | kKernels | kData), out_("stats", setting) {}

  void op_begins(const Op& op) override {
    const int32_t inputs = op.call.count - op.call.outputs;
    for (int32_t i = 0; i < inputs; i++) look(op, op.call.arguments[i], "input");
  }
  void op_ends(const Op& op, int64_t) override {
    for (int32_t i = op.call.count - op.call.outputs; i < op.call.count; i++)
      look(op, op.call.arguments[i], "output");
    last_op_ = op.name();
    kernels_.clear();
  }
  void kernel_ends(const char* name, int64_t) override {
    kernels_ += (kernels_.empty() ? "" : ", ") + std::string(name);
  }
  void report() override {
    out_.line("stats: %s",
              first_nan_.empty() ? "no NaN in any op's inputs or outputs" : first_nan_.c_str());
    if (!first_infinity_.empty()) out_.line("stats: %s", first_infinity_.c_str());
    out_.close();
  }

 private:
  void look(const Op& op, const OpArgument& argument, const char* side) {
    if (std::strncmp(argument.type, "Tensor", 6) != 0 || !argument.value) return;
    const auto& tensor = *static_cast<const DLTensor*>(argument.value);
    if (!has_values(tensor)) return;
    const Values v = examine(tensor);
    out_.line("stats: run %" PRId64 " %s %s %s %s: %.9g to %.9g, %" PRId64 " NaN, %" PRId64
              " infinite",
              op.run.number, op.name().c_str(), side, argument.name, describe(tensor).c_str(),
              v.least, v.largest, v.nans, v.infinities);
    if (v.nans && first_nan_.empty()) first_nan_ = first("NaN", v.nans, v, op, argument, side);
    if (v.infinities && first_infinity_.empty())
      first_infinity_ = first("infinity", v.infinities, v, op, argument, side);
  }

  // An output's was made by its op, since no input before had one. An input's was made since the op
  // before, or lay in the model.
  std::string first(const char* what, int64_t found, const Values& v, const Op& op,
                    const OpArgument& argument, const std::string& side) const {
    std::string text = std::string("the first ") + what + ": " + side + " " + argument.name +
                       " of " + op.name() + " in run " + std::to_string(op.run.number) + ", " +
                       std::to_string(found) + " of " + std::to_string(v.count) + " elements";
    if (side == "output") return text;
    text += last_op_.empty() ? ", before any op's output" : "; all was well after " + last_op_;
    return text + (kernels_.empty() ? "; no generated kernel ran since: it came from outside"
                                    : "; since then ran " + kernels_);
  }

  Output out_;
  std::string last_op_, kernels_;  // generated ones since the last op
  std::string first_nan_, first_infinity_;
};
}  // namespace

std::unique_ptr<Control> make_stats(const Settings& settings) {
  return std::make_unique<Stats>(settings.at("stats"));
}
}  // namespace ingot::host

#include "table.h"

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <mutex>

#include "../intercept.h"
#include "control.h"

namespace ingot::host {
namespace {
struct Row {
  ingot_host_control text;
  std::unique_ptr<Control> (*make)(const Settings&);  // null: it belongs to the row before
};

constexpr const char* kWhere = "1: to stderr; or FILE";
const Row kRows[] = {
    {{"call-log", "INGOT_CALL_LOG", kWhere,
      "a line for every op call with its arguments, every tensor made and ended, every generated "
      "kernel"},
     make_call_log},
    {{"host-timing", "INGOT_HOST_TIMING", kWhere,
      "of every function of the interface, op and generated kernel: calls, total time, least, most "
      "and average"},
     make_host_timing},
    {{"leak-check", "INGOT_LEAK_CHECK", kWhere,
      "whether every tensor handle that was made has been freed, and which calls made those that "
      "were not"},
     make_leak_check},
    {{"stats", "INGOT_STATS", kWhere,
      "least and largest value, NaNs and infinities of every op's inputs and outputs; at the end, "
      "where the first NaN came from"},
     make_stats},
    {{"null-kernels", "INGOT_NULL_KERNELS", kWhere,
      "ops give zeros and compute nothing; what a run costs beside its generated kernels is the "
      "host's overhead"},
     make_null_kernels},
    {{"dump", "INGOT_DUMP", "OP[@N[-M]][:before or :after], OP may be *",
      "the tensors of these calls, before or after them or both, one .npz each"},
     make_dump},
    {{"dump-to", "INGOT_DUMP_TO", "FOLDER", "where dump writes; default ingot-dump"}, nullptr},
    {{"capture", "INGOT_CAPTURE", "OP[@N]",
      "the N-th call of an op (default: its first) with all it takes and gives, for ingot replay"},
     make_capture},
    {{"capture-to", "INGOT_CAPTURE_TO", "FILE.npz", "where capture writes; default call.npz"},
     nullptr},
};

// Never destroyed: a step may still run when the process's static objects end.
auto& settings = *new Settings;
std::mutex mutex;

bool is_off(const std::string& value) { return value.empty() || value == "0"; }

Controls make_all(const Settings& wanted) {
  Controls made;
  for (const Row& row : kRows)
    if (row.make && wanted.contains(row.text.name)) made.push_back(row.make(wanted));
  return made;
}

void report_at_exit() {
  try {
    report_controls();
  } catch (const ControlError& error) {
    std::fprintf(stderr, "ingot: %s\n", error.what());
  }
}

void apply(Settings wanted) {
  static const int registered = std::atexit(report_at_exit);
  (void)registered;
  intercept(make_all(wanted));
  settings = std::move(wanted);
}

const Row& row_named(const std::string& name) {
  std::string known;
  for (const Row& row : kRows) {
    if (name == row.text.name) return row;
    known += (known.empty() ? "" : ", ") + std::string(row.text.name);
  }
  throw ControlError("there is no control '" + name + "'; there are " + known);
}
}  // namespace

const ingot_host_control* control_row(size_t index) {
  return index < std::size(kRows) ? &kRows[index].text : nullptr;
}

void set_control(const std::string& name, const std::string& value) {
  std::lock_guard lock(mutex);
  Settings wanted = settings;
  const Row& row = row_named(name);
  if (is_off(value))
    wanted.erase(row.text.name);
  else
    wanted[row.text.name] = value;
  apply(std::move(wanted));
}

void set_controls_from_environment() {
  std::lock_guard lock(mutex);
  Settings wanted = settings;
  for (const Row& row : kRows) {
    const char* value = std::getenv(row.text.variable);
    if (value && !is_off(value)) wanted[row.text.name] = value;
  }
  if (!wanted.empty()) apply(std::move(wanted));
}

void report_controls() {
  std::lock_guard lock(mutex);
  const Controls ended = intercept({});
  settings.clear();
  std::string problems;
  for (const auto& control : ended) {
    try {
      control->report();
    } catch (const ControlError& error) {
      problems += (problems.empty() ? "" : "; ") + std::string(error.what());
    }
  }
  if (!problems.empty()) throw ControlError(problems);
}
}  // namespace ingot::host

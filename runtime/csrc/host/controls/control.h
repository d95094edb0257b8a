// A control watches what crosses the border between generated code and the host, or changes it. The
// model is the Intercept Layer for OpenCL Applications
// (https://github.com/intel/opencl-intercept-layer). intercept.h calls the controls that are on,
// one call at a time, whatever thread it comes from.
#pragma once
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <stdexcept>
#include <string>
#include <vector>

#include "../tensor.h"
#include "op_call.h"

namespace ingot::host {
// What the user is to be told: one sentence.
class ControlError : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

// What a control wants to hear of; the rest costs it nothing. kData: it reads or writes the tensors
// of op calls, which it cannot on a GPU.
enum Interest : uint32_t { kOps = 1, kTensors = 2, kKernels = 4, kRuns = 8, kData = 16 };

// One run of a package's graph, on its thread.
struct Run {
  int64_t number = 0;                // from 1, over all packages of the process; 0: none runs
  std::vector<int64_t> first_input;  // sizes of the graph's first input: [T] tokens
  int64_t start_ns = 0;
  int64_t kernels_ns = 0;  // spent in generated kernels so far
  int64_t zeros_ns = 0;    // spent in zeroing outputs in place of computing them
};

// One call of an op: `linear@12` is the twelfth call of linear in the process.
struct Op {
  const OpCall& call;
  int64_t number;
  const Run& run;

  std::string name() const { return std::string(call.name) + "@" + std::to_string(number); }
};

// One call of the aoti_torch_* interface that makes or ends a tensor.
struct TensorCall {
  const char* function;
  const char* kernel;  // generated code is in this kernel or op call; null: between two
  const Run& run;
};

class Control {
 public:
  explicit Control(uint32_t wants) : interests(wants) {}
  virtual ~Control() = default;

  virtual void run_begins(const Run&) {}
  virtual void run_ends(const Run&, int64_t /*ns*/) {}
  virtual bool computes(const Op&) { return true; }  // false: the outputs are zeros
  virtual void op_begins(const Op&) {}
  virtual void op_ends(const Op&, int64_t /*ns*/) {}
  virtual void kernel_ends(const char* /*name*/, int64_t /*ns*/) {}  // a generated one
  virtual void tensor_made(const TensorCall&, const Tensor&) {}
  // `tensor` is still whole; `timed` comes when it is gone.
  virtual void tensor_ends(const TensorCall&, const Tensor&) {}
  virtual void timed(const TensorCall&, int64_t /*ns*/) {}
  // Says what was found, once, at the end. Throws ControlError.
  virtual void report() {}

  const uint32_t interests;
};

// Name of a control -> its value, of all that are on.
using Settings = std::map<std::string, std::string>;

// Each takes the value of its own setting, and others that belong to it, and throws ControlError.
std::unique_ptr<Control> make_call_log(const Settings& settings);
std::unique_ptr<Control> make_host_timing(const Settings& settings);
std::unique_ptr<Control> make_leak_check(const Settings& settings);
std::unique_ptr<Control> make_stats(const Settings& settings);
std::unique_ptr<Control> make_null_kernels(const Settings& settings);
std::unique_ptr<Control> make_dump(const Settings& settings);
std::unique_ptr<Control> make_capture(const Settings& settings);
}  // namespace ingot::host

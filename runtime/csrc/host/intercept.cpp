#include "intercept.h"

#include <cstring>
#include <mutex>
#include <unordered_map>

#include "../clock.h"
#include "dltensor.h"

namespace ingot::host {
std::atomic<uint32_t> watched{0};

namespace {
// What this thread is in the midst of.
thread_local Run t_run;
thread_local const char* t_kernel = nullptr;
thread_local bool t_op_watched = false;  // it is an op call, which watch_op has seen

std::mutex mutex;
// Never destroyed: a step may still run when the process's static objects end.
auto& active = *new Controls;
auto& op_calls = *new std::unordered_map<const char*, int64_t>;  // a name has one address
int64_t runs = 0;

// Each control that wants to hear of it, one after the other.
template <class Tell>
void tell(uint32_t interest, Tell hear) {
  for (const auto& control : active)
    if (control->interests & interest) hear(*control);
}

// Nothing is computed: zeros, so that what follows is the same in every run.
void zero_outputs(const OpCall& call) {
  for (int32_t i = call.count - call.outputs; i < call.count; i++) {
    const auto& output = *static_cast<const DLTensor*>(call.arguments[i].value);
    int64_t bytes = output.dtype.bits / 8;
    for (int32_t d = 0; d < output.ndim; d++) bytes *= output.shape[d];
    if (bytes) std::memset(output.data, 0, bytes);
  }
}

int32_t watch_op(const OpCall& call) {
  t_op_watched = true;
  std::unique_lock lock(mutex);
  const Op op{call, ++op_calls[call.name], t_run};
  bool computes = true;
  tell(kOps, [&](Control& control) {
    control.op_begins(op);
    computes &= control.computes(op);
  });
  lock.unlock();
  const int64_t start = now_ns();
  int32_t failed = 0;
  if (computes)
    failed = call.compute();
  else
    zero_outputs(call);
  const int64_t spent = now_ns() - start;
  if (!computes) t_run.zeros_ns += spent;
  lock.lock();
  if (failed == 0) tell(kOps, [&](Control& control) { control.op_ends(op, spent); });
  return failed;
}
}  // namespace

Controls intercept(Controls controls) {
  std::lock_guard lock(mutex);
  active.swap(controls);
  uint32_t wanted = 0;
  for (const auto& control : active) wanted |= control->interests;
  watched.store(wanted, std::memory_order_relaxed);
  op_hook.store(wanted & kOps ? watch_op : nullptr, std::memory_order_relaxed);
  op_calls.clear();
  runs = 0;
  return controls;
}

void WatchedCall::begin(const Tensor* ended) {
  if (ended) {
    std::lock_guard lock(mutex);
    tell(kTensors,
         [&](Control& control) { control.tensor_ends({function_, t_kernel, t_run}, *ended); });
  }
  start_ns_ = now_ns();
}

void WatchedCall::end() {
  const int64_t spent = now_ns() - start_ns_;
  const TensorCall call{function_, t_kernel, t_run};
  std::lock_guard lock(mutex);
  tell(kTensors, [&](Control& control) {
    if (made_ && *made_) control.tensor_made(call, **made_);
    control.timed(call, spent);
  });
}

void kernel_begins(const char* name) {
  t_kernel = name;
  t_op_watched = false;
}

void kernel_ends(const char* name, int64_t duration_ns) {
  t_kernel = nullptr;
  if (t_op_watched) return;
  t_run.kernels_ns += duration_ns;
  if (!is_watched(kKernels)) return;
  std::lock_guard lock(mutex);
  tell(kKernels, [&](Control& control) { control.kernel_ends(name, duration_ns); });
}

void run_begins(int64_t dim, const int64_t* sizes) {
  if (watched.load(std::memory_order_relaxed) == 0) return;
  std::lock_guard lock(mutex);
  t_run = {++runs, {sizes, sizes + dim}, now_ns(), 0};
  tell(kRuns, [&](Control& control) { control.run_begins(t_run); });
}

void run_ends() {
  if (t_run.number == 0) return;
  const int64_t spent = now_ns() - t_run.start_ns;
  std::lock_guard lock(mutex);
  tell(kRuns, [&](Control& control) { control.run_ends(t_run, spent); });
  t_run = {};
}
}  // namespace ingot::host

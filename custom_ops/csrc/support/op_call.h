// An op call as data, for who wants to watch it or to stand in for it. The generated shims
// (ops_shims.cpp) ask `op_hook` before they compute: one relaxed load where nobody has set it.
#pragma once

#include <atomic>
#include <cstdint>

namespace ingot {

// One argument, by the name and the type that the op's schema gives it; an output is a "Tensor!"
// after those. `value` points to a DLTensor, int64_t, double, int32_t (bool) or a string's
// characters; null: None.
struct OpArgument {
  const char* name;
  const char* type;
  const void* value;
};

struct OpCall {
  const char* name;
  const OpArgument* arguments;
  int32_t count;
  int32_t outputs;  // the last of the arguments
  int32_t (*run)(const void* call);
  const void* call;

  int32_t compute() const { return run(call); }  // 0, or 1 with ingot_ops_last_error() set
};

// Stands in for a call's computation; returns as `compute` does.
using OpHook = int32_t (*)(const OpCall& call);
inline std::atomic<OpHook> op_hook{nullptr};  // one for each host

template <int32_t Count, typename Call>
int32_t hooked(OpHook hook, const char* name, const OpArgument (&arguments)[Count], int32_t outputs,
               const Call& call) {
  const auto run = [](const void* state) { return (*static_cast<const Call*>(state))(); };
  return hook({name, arguments, Count, outputs, run, &call});
}

}  // namespace ingot

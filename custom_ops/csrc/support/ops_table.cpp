#include <chrono>

#include "ops_api.h"
#include "support.h"

extern "C" {

const char* ingot_ops_last_error() { return ingot::last_error(); }

int32_t ingot_ops_count() { return ingot::kOpCount; }

const char* ingot_ops_name(int32_t index) {
  return index >= 0 && index < ingot::kOpCount ? ingot::kOps[index].name : nullptr;
}

const char* ingot_ops_schema(int32_t index) {
  return index >= 0 && index < ingot::kOpCount ? ingot::kOps[index].schema : nullptr;
}

double ingot_ops_measure_calls(int32_t index, void* const* const* calls, int64_t copies,
                               int64_t first, int64_t count) {
  if (index < 0 || index >= ingot::kOpCount || copies < 1 || first < 0 || count < 1) {
    ingot::set_error("to measure calls takes an op of the table, copies of its call, and a count");
    return -1.0;
  }
  const auto begun = std::chrono::steady_clock::now();
  for (int64_t i = 0; i < count; i++) {
    if (ingot::kOps[index].call(calls[(first % copies + i) % copies]) != 0) return -1.0;
  }
  const std::chrono::duration<double> passed = std::chrono::steady_clock::now() - begun;
  return passed.count() / static_cast<double>(count);
}

}  // extern "C"

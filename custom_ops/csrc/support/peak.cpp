#include "peak.h"

#include <omp.h>

#include <chrono>
#include <cstring>

#include "ops_api.h"
#include "support.h"

namespace ingot {
namespace {

constexpr const char* kFactors[] = {"float32", "bfloat16", "int8"};  // as enum Factor

Factor by_name(const char* name) {
  for (int i = 0; i < 3; i++) {
    if (strcmp(name, kFactors[i]) == 0) return static_cast<Factor>(i);
  }
  fail("peaks are of float32, bfloat16 and int8, not of \"%s\"", name);
}

double measure(Factor factor, int threads) {
  constexpr double (*kLevels[])(Factor) = {v2::multiply, v3::multiply, v4::multiply,
                                           v4_bf16::multiply, v4_amx::multiply};
  const auto multiply = kLevels[static_cast<int>(current_level())];
  double operations = 0;
  const auto begun = std::chrono::steady_clock::now();
#pragma omp parallel num_threads(threads) reduction(+ : operations)
  operations += multiply(factor);
  return operations /
         std::chrono::duration<double>(std::chrono::steady_clock::now() - begun).count();
}

}  // namespace
}  // namespace ingot

double ingot_ops_measure_peak(const char* factor, int32_t threads) try {
  return ingot::measure(ingot::by_name(factor), threads) / 1e9;
} catch (const ingot::Failure&) {
  return 0.0;
}

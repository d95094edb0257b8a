// What the linears share that end in an activation. A unit of work multiplies a gate's columns and
// what they gate one after the other, and writes what becomes of both: half as much as the sums.
#pragma once

#include <cstring>

#include "activation.h"
#include "packed.h"
#include "sizes.h"

namespace ingot::INGOT_LEVEL {
namespace {

// Panels of the weight with which units begin: gates, or all.
template <typename Call>
int64_t unit_panels(const Call& call) {
  return call.activated.gated ? call.weight.panels / 2 : call.weight.panels;
}

// to = function(sums), or function(sums) * up unless that is null. far: past the caches; whole
// cache lines then. Not inlined: it is the same code, to the bit, whoever sums up.
template <typename Function>
[[gnu::noinline]] void activate(Function function, const float* sums, const float* up, int64_t size,
                                float* to, bool far) {
  const int64_t whole = size / kLanes * kLanes;
  for (int64_t i = 0; i < whole; i += kLanes) {
    Vec value = function(load<Vec>(sums + i));
    if (up != nullptr) value *= load<Vec>(up + i);
    if (far) {
      store_far(to + i, value);
    } else {
      store(to + i, value);
    }
  }
  if (whole == size) return;
  alignas(64) float last[kLanes] = {}, last_up[kLanes] = {};
  const auto bytes = static_cast<size_t>(size - whole) * sizeof(float);
  memcpy(last, sums + whole, bytes);
  if (up != nullptr) memcpy(last_up, up + whole, bytes);
  activate(function, last, up != nullptr ? last_up : nullptr, kLanes, last, false);
  memcpy(to + whole, last, bytes);
}

inline void activate(Activation activation, const float* sums, const float* up, int64_t size,
                     float* to, bool far = false) {
  if (activation == Activation::kSilu) return activate(Silu(), sums, up, size, to, far);
  if (activation == Activation::kGelu) return activate(Gelu(), sums, up, size, to, far);
  activate(GeluTanh(), sums, up, size, to, far);
}

// Writes what the activation makes of the sums of a panel, [rows][64] from `row` on. sum_up(to)
// adds up those that they gate. kMostRows: of `rows`.
template <int64_t kMostRows, typename Call, typename SumUp>
void write_activated(const Call& call, int64_t panel, int64_t row, int64_t rows, const float* sums,
                     bool far, SumUp sum_up) {
  alignas(64) float gated[kMostRows * kPanel];
  const float* up = call.activated.gated ? gated : nullptr;
  if (up != nullptr) sum_up(gated);
  const int64_t outputs = call.outputs(), column = panel * kPanel;
  const int64_t columns = least(outputs - column, kPanel);
  float* to = call.out + row * outputs + column;
  for (int64_t r = 0; r < rows; r++, to += outputs, sums += kPanel) {
    const float* up_row = up != nullptr ? up + r * kPanel : nullptr;
    activate(call.activated.function, sums, up_row, columns, to, far && columns == kPanel);
  }
}

// Whether a call's sums go to memory first: of few rows, whose panels are read one behind the
// other, and of halves that do not begin with panels.
template <typename Call>
bool is_deferred(const Call& call, bool few_rows) {
  return call.activated.gated && (few_rows || call.outputs() % kPanel != 0);
}

// Of the space for them, whole cache lines.
template <typename Call>
int64_t deferred_bytes(const Call& call, bool few_rows) {
  constexpr int64_t kLine = 64, kFloat = sizeof(float);
  return is_deferred(call, few_rows) ? ceil_div(call.rows * call.columns * kFloat, kLine) * kLine
                                     : 0;
}

// Such a call, which is multiplied as if nothing were activated; or any other, as it is.
template <typename Call>
class Deferred {
 public:
  // space: as many as `deferred_bytes`.
  Deferred(const Call& call, bool few_rows, float* space) : call_(call), product_(call) {
    if (!is_deferred(call, few_rows)) return;
    product_.out = space;
    product_.activated = {};
  }

  // What is to be multiplied.
  const Call& product() const { return product_; }

  // Writes the outputs when all of a team's threads are here: all of them call it.
  void finish() const {
    if (product_.out == call_.out) return;
    const int64_t outputs = call_.outputs(), panels = ceil_div(outputs, kPanel);
#pragma omp barrier
#pragma omp for collapse(2) schedule(static)
    for (int64_t row = 0; row < call_.rows; row++) {
      for (int64_t panel = 0; panel < panels; panel++) {
        const int64_t column = panel * kPanel;
        const float* gates = product_.out + row * call_.columns + column;
        activate(call_.activated.function, gates, gates + outputs, least(outputs - column, kPanel),
                 call_.out + row * outputs + column);
      }
    }
  }

 private:
  Call call_, product_;
};

}  // namespace
}  // namespace ingot::INGOT_LEVEL

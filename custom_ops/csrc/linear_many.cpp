// linear_many: linear, for many rows; see custom_ops/linear_many.py.
#include "activated_sums.h"
#include "linear.h"
#include "linear_parts.h"
#include "ops.h"
#include "shares.h"
#include "tile.h"
#include "workspace.h"

namespace ingot::INGOT_LEVEL {

#if defined(INGOT_AMX)
namespace {

// Of pairs of tiles of rows, and of as many halves of panels as are taken at once. Of x a thread
// splits the rows of a group, of the weight what meets them: groups so that this is the least.
Shares choose_shares(const PackedLinear& call) {
  const int64_t threads = omp_get_max_threads(), pairs = ceil_div(call.rows, kPairRows);
  const int64_t runs = ceil_div(ceil_div(call.columns, kHalf), kMostHalves);
  const auto is_split = [&](int64_t groups) {
    return call.rows / groups + call.columns * groups / threads;
  };
  int64_t groups = ceil_div(pairs, kMostUnitPairs);
  while (2 * groups <= pairs &&
         (groups * runs < threads || is_split(2 * groups) < is_split(groups))) {
    groups *= 2;
  }
  if (groups > threads) groups = least(ceil_div(groups, threads) * threads, pairs);
  return {pairs, runs, groups, ceil_div(threads, groups)};
}

// What is not for tiles: a row times half a panel as linear has it.
void compute_in_floats(const PackedLinear& call, int64_t row, int64_t half) {
  float sums[kPanel];
  const int64_t panel = half / 2, column = panel * kPanel, first = half % 2 * kHalf;
  PackedLinear part = call;
  part.x += row * call.x_stride;
  part.weight.words += panel * call.weight.panel_words();
  part.weight.panels = 1;
  if (call.bias != nullptr) part.bias += column;
  part.out = sums;
  part.rows = 1;
  part.columns = least(call.columns - column, kPanel);
  part.activated = {};
  run_linear(part);
  memcpy(call.out + row * call.columns + column + first, sums + first,
         static_cast<size_t>(least(part.columns - first, kHalf)) * sizeof(float));
}

void compute_unit(const PackedLinear& call, const SplitRows& x, Halves halves) {
  FloatUnit unit(call, x, halves);
  unit.multiply();
  for (int64_t half = 0; half < halves.count; half++) {
    for (int64_t row = x.row(); row < x.row_end(); row++) {
      if (unit.in_floats(row, half)) compute_in_floats(call, row, halves.first + half);
    }
  }
  if (call.activated.function == Activation::kNone) return;
  const int64_t column = halves.first * kHalf;
  const int64_t columns = least(call.columns - column, halves.count * kHalf);
  for (int64_t row = x.row(); row < x.row_end(); row++) {
    float* sums = call.out + row * call.columns + column;
    activate(call.activated.function, sums, nullptr, columns, sums);
  }
}

void run_parts(const PackedLinear& whole) {
  if (whole.rows == 0) return;
  const Workspace space(deferred_bytes(whole, true));
  const Deferred deferred(whole, true, space.as<float>());
  const PackedLinear& call = deferred.product();
  const Shares shares = choose_shares(call);
  int64_t* taken = none_taken(shares.count());
  const int64_t work = call.rows * call.columns * call.weight.depth;
#pragma omp parallel if (work > kParallelWork)
  {
    const Tiles configured;
    SplitRows x;
    take_shares(taken, shares.count(), [&](int64_t share, int64_t i) {
      const int64_t run = shares.first_panel(share) + i;
      if (run >= shares.end_panel(share)) return false;
      x.split(call, shares.first_tile(share) * kPairRows, shares.end_tile(share) * kPairRows);
      const int64_t half = run * kMostHalves;
      compute_unit(call, x, {half, least(ceil_div(call.columns, kHalf) - half, kMostHalves)});
      return true;
    });
    deferred.finish();
  }
}

}  // namespace
#endif

void run_linear_many(const PackedLinear& call) {
#if defined(INGOT_AMX)
  if (call.weight.step == 1) return run_parts(call);
#endif
  run_linear(call);
}

void linear_many(const DLTensor* x, const DLTensor* weight, const DLTensor* bias,
                 int64_t out_features, DLTensor* out0) {
  PackedLinear call;
  if (read_call(x, weight, bias, out_features, {}, out0, &call)) run_linear_many(call);
}

}  // namespace ingot::INGOT_LEVEL

// linear_many: linear, for many rows; see custom_ops/linear_many.py.
#include "linear.h"
#include "linear_parts.h"
#include "ops.h"
#include "shares.h"
#include "tile.h"

namespace ingot::INGOT_LEVEL {

#if defined(INGOT_AMX)
namespace {

// A thread takes so many halves of panels at once: one, or where K has several slabs more, which
// then meet a slab of x while it is in L2.
constexpr int64_t kMostHalves = 3;
constexpr int64_t halves_at_once(int64_t depth) {
  return depth > kSlabSteps * kStepDepth ? kMostHalves : 1;
}

// Of pairs of tiles of rows, and of as many halves of panels as are taken at once.
Shares choose_shares(const PackedLinear& call) {
  const int64_t threads = omp_get_max_threads(), pairs = ceil_div(call.rows, kPairRows);
  const int64_t runs = ceil_div(ceil_div(call.columns, kHalf), halves_at_once(call.weight.depth));
  int64_t groups = ceil_div(pairs, kMostUnitPairs);
  while (groups * runs < 2 * threads && 2 * groups <= pairs) groups *= 2;
  if (groups > threads) groups = least(ceil_div(groups, threads) * threads, pairs);
  return {pairs, runs, groups, ceil_div(threads, groups)};
}

// What is not for tiles: rows times half a panel as linear has them.
void compute_in_floats(const PackedLinear& call, int64_t row, int64_t rows, int64_t half) {
  float sums[kAmxRows * kPanel];
  const int64_t panel = half / 2, column = panel * kPanel, first = half % 2 * kHalf;
  PackedLinear part = call;
  part.x += row * call.x_stride;
  part.weight.words += panel * call.weight.panel_words();
  part.weight.panels = 1;
  if (call.bias != nullptr) part.bias += column;
  part.out = sums;
  part.rows = rows;
  part.columns = least(call.columns - column, kPanel);
  run_linear(part);
  for (int64_t r = 0; r < rows; r++) {
    memcpy(call.out + (row + r) * call.columns + column + first, sums + r * part.columns + first,
           static_cast<size_t>(least(part.columns - first, kHalf)) * sizeof(float));
  }
}

bool all_finite(const float* sums, int64_t count) {
  bool finite = true;
  for (int64_t i = 0; i < count; i++) finite &= sums[i] - sums[i] == 0.0f;
  return finite;
}

// Rows of x times the halves of panels from `half`.
void compute_unit(const PackedLinear& call, const SplitRows& x, int64_t half) {
  const int64_t halves = ceil_div(call.columns, kHalf);
  const int64_t end = least(half + halves_at_once(call.weight.depth), halves);
  HalfSeen seen[kMostHalves];
  FloatUnit unit(call, x);
  for (int64_t step = 0; step < x.steps(); step += kSlabSteps) {
    for (int64_t h = half; h < end; h++) unit.add_slab(h, step, h + 1, &seen[h - half]);
  }
  for (int64_t h = half; h < end; h++) {
    const bool fits = seen[h - half].weights_fit_tiles();
    const bool finite = seen[h - half].sums.all_finite();
    const int64_t column = h * kHalf, columns = least(call.columns - column, kHalf);
    for (int64_t row = x.row(); row < x.row_end(); row++) {
      if (fits && x.fits_tiles(row) &&
          (finite || all_finite(call.out + row * call.columns + column, columns)))
        continue;
      compute_in_floats(call, row, 1, h);
    }
  }
}

void run_parts(const PackedLinear& call) {
  if (call.rows == 0) return;
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
      compute_unit(call, x, run * halves_at_once(call.weight.depth));
      return true;
    });
  }
}

}  // namespace
#endif

void linear_many(const DLTensor* x, const DLTensor* weight, const DLTensor* bias,
                 int64_t out_features, DLTensor* out0) {
  PackedLinear call;
  if (!read_call(x, weight, bias, out_features, out0, &call)) return;
#if defined(INGOT_AMX)
  if (call.weight.step == 1) return run_parts(call);
#endif
  run_linear(call);
}

}  // namespace ingot::INGOT_LEVEL

// Many rows of linear_w4 and linear_w8 by tiles of AMX (amx.h).
//
// A step is the product of 16 rows of x and 16 columns of the output over one group, in integers.
// Tiles reach vector registers by way of memory alone, so while step i is scaled and added to the
// sums, step i + 1 is stored and steps i + 2 and i + 3 are multiplied, in registers that take
// turns: a product takes longer than a step. The scaling is what limits: while tiles are in use the
// CPU adds and multiplies floats in one port instead of two.
//
// x lies in tiles of 16 rows; four tiles, a chunk of the depth, stay in registers for a panel's
// four columns of tiles. The panel's chunk is unpacked into the L1 cache in the order of the steps,
// and meets all rows of the unit there, whose sums go through the L2 cache once a chunk.
//
// 16-bit x is two planes, the high bytes (signed) and the low ones (unsigned), with a product each:
// x = 256 high + low.
#pragma once

#if defined(INGOT_AMX)

#include <omp.h>

#include <type_traits>
#include <utility>

#include "tile_steps.h"

namespace ingot::INGOT_LEVEL {
namespace {

constexpr int64_t kUnitRows = 256;       // at most
constexpr int64_t kFewTiles = 4;         // of rows: memory limits
constexpr int64_t kUnitBytes = 3 << 19;  // of x, to stay in the L2 cache beside the rest
constexpr int64_t kMuchOfX = 1 << 20;    // that with the rest hardly stays there
constexpr int64_t kFarBytes = 8 << 20;   // of x and the output: L2 keeps neither, write past it

// x of a chunk: rows of tiles from `first_tile` on.
struct TiledRowsOfX {
  const Activations& x;  // [tiles of rows][steps][64 columns][planes][rows]
  int64_t tile_rows;
  int64_t first_tile;
  int64_t tiles;
  int64_t first_step;

  int64_t step(int64_t tile) const { return (first_tile + tile) * x.groups + first_step; }
  const uint32_t* words(int64_t tile) const {
    return x.words + step(tile) * tile_rows * x.words_per_group;
  }
};

// A panel's sums [rows][64]. The first chunk's begin with the bias instead, where it is not null;
// of the last one's, the first `whole` tiles end in the output, rows of `columns`; `out` is where
// the next one does, or null. `far`: the output's cache lines are written whole, straight to
// memory: to read them first takes as long as to write.
struct Sums {
  float* kept;
  const float* bias;
  float* out;
  int64_t columns;
  int64_t whole;
  bool far;

  template <int kRows>
  void begin(Vec (&sums)[kRows], int64_t column) const {
    if (bias != nullptr) {
#pragma GCC unroll 16
      for (int r = 0; r < kRows; r++) sums[r] = load<Vec>(bias + column);
    } else {
#pragma GCC unroll 16
      for (int r = 0; r < kRows; r++) sums[r] = load<Vec>(kept + r * kPanel + column);
    }
  }

  template <int kRows>
  void end(const Vec (&sums)[kRows], int64_t column) const {
    float* to = (out != nullptr ? out : kept) + column;
    const int64_t stride = out != nullptr ? columns : kPanel;
    if (out != nullptr && far) {
#pragma GCC unroll 16
      for (int r = 0; r < kRows; r++) {
        store_far(to + r * stride, sums[r]);
      }
    } else {
#pragma GCC unroll 16
      for (int r = 0; r < kRows; r++) store(to + r * stride, sums[r]);
    }
  }
};

// What is fetched meanwhile: so many cache lines for each column of tiles, into the L1 cache
// (kLocality 3) or the L2 cache (2).
template <int kLocality>
struct Ahead {
  const uint8_t* from;
  int64_t lines;

  void fetch() {
    for (int64_t i = 0; i < lines; i++, from += kLineBytes) __builtin_prefetch(from, 0, kLocality);
  }
};

// Adds one chunk's products to the sums. kNumber: 0, 1 and so on, for each step of a turn.
// kFetchX: the next rows of x are fetched meanwhile.
template <typename Plan, bool kFetchX, int... kNumber>
[[gnu::noinline]] void multiply_chunk(const PanelChunk<Plan>& chunk, const TiledRowsOfX& rows,
                                      int64_t group_size, Sums sums, Ahead<2> ahead,
                                      std::integer_sequence<int, kNumber...>) {
  constexpr int kSteps = Plan::kSteps, kRows = Plan::kRows;
  alignas(64) int32_t space[2][Plan::kPlanes * kProduct];
  int32_t *dots = space[0], *next_dots = space[1];
  TileSteps<Plan> steps(chunk, group_size);
  (steps.template load_x<kNumber % kSteps>(rows.words(0)), ...);
  steps.template begin<0>();
  if constexpr (Plan::kAhead == 3) steps.template begin<1>();
  steps.template end<0>(dots);
  steps.template begin<Plan::kAhead - 1>();
  for (int64_t t = 0; t < rows.tiles; t++) {
    const uint32_t* next_words = rows.words(t + 1 < rows.tiles ? t + 1 : t);
    Ahead<3> next_x = {reinterpret_cast<const uint8_t*>(next_words),
                       kSteps * Plan::kPlanes * group_size * kRows / kLineBytes / kColumnTiles};
    const float* x_scales = rows.x.scales + rows.step(t) * kRows;
    const int32_t* x_offsets = rows.x.offsets + rows.step(t) * kRows;
    for (int64_t c = 0; c < kColumnTiles; c += Plan::kTurn) {
      Vec kept[kRows];
      const auto step = [&](auto number) __attribute__((always_inline)) {
        constexpr int kNow = decltype(number)::value, i = kNow % kSteps;
        constexpr int kBegun = kNow + Plan::kAhead;
        const int64_t column = (c + kNow / kSteps) * kAmxWords;
        if constexpr (i == 0) {
          sums.begin(kept, column);
          if (kFetchX) next_x.fetch();
        }
        steps.template end<kNow + 1>(next_dots);
        steps.template begin<kBegun>();
        if (c + kBegun / kSteps == kColumnTiles - 1) {
          steps.template load_x<kBegun % kSteps>(next_words);
        }
        add_step<Plan>(kept, dots, x_scales + i * kRows, x_offsets + i * kRows,
                       chunk.columns[i].scales + column, chunk.shifts[i] + column,
                       chunk.columns[i].zeros + column);
        std::swap(dots, next_dots);
        if constexpr (i + 1 == kSteps) {
          sums.end(kept, column);
          ahead.fetch();
        }
      };
      (step(std::integral_constant<int, kNumber>{}), ...);
    }
    sums.kept += kRows * kPanel;
    if (sums.out != nullptr) {
      sums.out = t + 1 < sums.whole ? sums.out + kRows * sums.columns : nullptr;
    }
  }
}

// The same for a panel's chunk of the steps from rows.first_step on.
template <typename Plan>
void add_chunk(const Unit& unit, const TiledRowsOfX& rows, const Sums& sums) {
  PanelChunk<Plan> chunk;
  const QuantisedWeight& weight = unit.call.weight;
  const int64_t passes = unit.call.passes, blocks = ceil_div(Plan::kSteps, passes);
  const int64_t each = rows.tiles * kColumnTiles * kLineBytes;
  // With one row of tiles the weight comes while it is unpacked; with more there is time enough to
  // fetch it while they are multiplied, with few that of the chunk after the next.
  const bool single = rows.tiles == 1;
  const int64_t distance = rows.tiles <= kFewTiles ? 2 : 1;
  const int64_t lines = single ? 0 : ceil_div(blocks * weight.block_bytes, each);
  if (single) {
    chunk.template unpack<true>(unit.call, unit.panel, rows.first_step);
  } else {
    chunk.template unpack<false>(unit.call, unit.panel, rows.first_step);
  }
  const int64_t next = (rows.first_step + distance * Plan::kSteps) / passes;
  const bool behind = next >= weight.groups;
  const Ahead<2> ahead = {
      weight.block(behind ? unit.panel_behind() : unit.panel, behind ? next - weight.groups : next),
      lines};
  const auto numbers = std::make_integer_sequence<int, Plan::kSteps * Plan::kTurn>();
  // With groups of 128, 8-bit x comes from the L2 cache in time, as long as it all stays there.
  const int64_t bytes_of_x = rows.tiles * rows.tile_rows * rows.x.row_words() * 4;
  if (Plan::kDeep == 1 || (Plan::kPlanes == 1 && bytes_of_x > kMuchOfX)) {
    multiply_chunk<Plan, true>(chunk, rows, weight.group_size, sums, ahead, numbers);
  } else {
    multiply_chunk<Plan, false>(chunk, rows, weight.group_size, sums, ahead, numbers);
  }
}

// Adds up a unit, of which the first `whole` tiles go straight to the output.
template <typename Plan>
void sum_by_tiles(const Unit& unit, float* kept, int64_t whole, bool far) {
  alignas(64) float bias[kPanel];
  const QuantisedLinear& call = unit.call;
  constexpr int kRows = Plan::kRows;
  unit.begin(bias, 1);
  float* out = whole > 0 ? call.out + unit.row * call.columns + unit.panel * kPanel : nullptr;
  for (int64_t first = 0; first < unit.x.groups; first += Plan::kSteps) {
    const TiledRowsOfX rows = {unit.x, kRows, unit.row / kRows, ceil_div(unit.rows, kRows), first};
    const int64_t left = unit.x.groups - first;
    const bool last = left <= Plan::kSteps;
    const Sums sums = {kept, first == 0 ? bias : nullptr, last ? out : nullptr, call.columns, whole,
                       far};
    if (left < Plan::kSteps) {
      add_chunk<typename Plan::Single>(unit, rows, sums);
    } else {
      add_chunk<Plan>(unit, rows, sums);
    }
  }
}

// Whole tiles of whole cache lines go to the output as they are summed up; others, and what an
// activation is to be made of, by way of the unit's sums.
template <typename Plan>
void many_rows_by_tiles(const Unit& unit) {
  alignas(64) float sums[kUnitRows * kPanel];
  const QuantisedLinear& call = unit.call;
  const int64_t outputs = call.outputs();
  const bool lines_fit = reinterpret_cast<uintptr_t>(call.out) % kLineBytes == 0 &&
                         outputs % kAmxWords == 0 && (unit.panel + 1) * kPanel <= outputs;
  const bool far = call.rows * (call.depth + outputs) * int64_t{sizeof(float)} >= kFarBytes;
  if (call.activated.function == Activation::kNone) {
    const int64_t whole = lines_fit ? unit.rows / Plan::kRows : 0;
    sum_by_tiles<Plan>(unit, sums, whole, far);
    unit.end(sums, whole * Plan::kRows);
  } else {
    const auto sum_up = [](const Unit& part, float* to) { sum_by_tiles<Plan>(part, to, 0, false); };
    sum_up(unit, sums);
    write_activated<kUnitRows>(unit, sums, far && lines_fit, sum_up);
  }
  if (far) _mm_sfence();  // what was written past the caches is seen before what follows
}

// A group of a tile of x, to the bit as round_group does it; rows beyond the last one, and steps
// beyond the last group, are zero. All rows at once: each lane has the scale of one, and what is
// written lies side by side.
template <typename Plan>
void round_tile_group(const QuantisedLinear& call, int64_t tile, int64_t g, const Activations& x) {
  constexpr int kRows = Plan::kRows;
  static_assert(kLanes == kAmxRows && kRows <= kLanes);
  const int64_t size = call.weight.group_size, columns = size / Plan::kDeep;
  const int64_t plane = kRows * columns;
  alignas(64) float space[kRows][kMostGroup];
  alignas(64) RoundingScale<Vec> scale;
  const float* from[kRows];
  for (int64_t r = 0; r < kRows; r++) {
    const int64_t row = tile * kRows + r;
    const bool some = row < call.rows && g < call.weight.groups;
    from[r] = some ? arranged_group(call, row, g, space[r])
                   : static_cast<float*>(memset(space[r], 0, sizeof(space[r])));
  }
  for (int64_t pass = 0; pass < call.passes; pass++) {
    const int64_t step = tile * x.groups + g * call.passes + pass;
    const bool last = pass + 1 == call.passes;
    VecInt largest[kLanes] = {};
    for (int64_t r = 0; r < kRows; r++) largest[r] = largest_bits(from[r], size);
    scale = RoundingScale<Vec>(largest_lanes(largest), Plan::Format::kMost);
    memcpy(x.scales + step * kRows, &scale.scale, kRows * sizeof(float));
    for (int64_t r = 0; r < kRows; r++) {
      auto* to = reinterpret_cast<int8_t*>(x.words) + step * Plan::kPlanes * size * kRows;
      to += r * columns;
      const Vec inverse = broadcast(scale.inverse[r]), unit = broadcast(scale.scale[r]);
      VecInt total = {};
      for (int64_t first = 0; first < size; first += columns, to += Plan::kPlanes * plane) {
        for (int64_t i = 0; i < columns; i += kLanes) {
          const auto value = load<Vec>(from[r] + first + i);
          const VecInt integers = rounded(value, inverse);
          const VecInt high = Plan::kPlanes == 1 ? integers : integers >> 8;
          store(to + i, narrow_ordered<int8_t, typename Plan::Order>(high));
          if (Plan::kPlanes == 2) {
            store(to + plane + i, narrow_ordered<int8_t, typename Plan::Order>(integers));
          }
          if (Plan::kOffsets) total += integers;
          if (!last) {
            store(space[r] + first + i, value - unit * __builtin_convertvector(integers, Vec));
          }
        }
      }
      if (Plan::kOffsets) x.offsets[step * kRows + r] = -sum_of_lanes(total);
      from[r] = space[r];
    }
  }
}

// A thread begins with rows that it rounded where it can, which lie in its L2 cache, and takes
// panels of other rows when those are through.
template <typename Plan>
void run_tiles(const QuantisedLinear& whole, bool parallel) {
  const int64_t groups = (whole.weight.groups == 0 ? 1 : whole.weight.groups) * whole.passes;
  // What is left of the depth after whole chunks is one step, or padded to a chunk.
  const int64_t steps =
      groups % Plan::kSteps == 1 ? groups : ceil_div(groups, Plan::kSteps) * Plan::kSteps;
  constexpr int kRows = Plan::kRows;
  const int64_t padded = ceil_div(whole.rows, kRows) * kRows, size = whole.weight.group_size;
  const bool few = padded <= kFewTiles * kRows;
  const Room<typename Plan::Format> room(whole, few, padded, steps);
  const Deferred deferred(whole, few, room.sums());
  const QuantisedLinear& call = deferred.product();
  const Activations x = room.x();
  const int64_t fit = kUnitBytes / (x.row_words() * 4) / kRows * kRows;
  const int64_t most = fit < 2 * kRows ? 2 * kRows : fit < kUnitRows ? fit : kUnitRows;
  const int64_t units = ceil_div(padded, most);
  // A share is a unit's rows and the panels, or with few rows a stretch of them, so that what a
  // thread fetches ahead is its own.
  const Shares shares = {padded / kRows, unit_panels(call), units,
                         parallel && few ? omp_get_max_threads() : 1};
  int64_t* taken = none_taken(shares.count());
  const auto bytes = static_cast<uint8_t>(size / Plan::kDeep);
  const TileShape product = {kRows, 64}, row = {kRows, bytes};
  const TileShape codes = {static_cast<uint8_t>(bytes / 4), 64};
#pragma omp parallel if (parallel)
  {
#pragma omp for collapse(2) schedule(static)
    for (int64_t tile = 0; tile < padded / kRows; tile++) {
      for (int64_t g = 0; g < steps / call.passes; g++) {
        round_tile_group<Plan>(call, tile, g, x);
      }
    }
    const Tiles tiles({product, product, codes, codes, row, row, row, row});
    take_shares(taken, shares.count(), [&](int64_t share, int64_t i) {
      const int64_t panel = shares.first_panel(share) + i;
      if (panel >= shares.end_panel(share)) return false;
      const int64_t first = shares.first_tile(share) * kRows, left = call.rows - first;
      const int64_t rows = shares.end_tile(share) * kRows - first;
      many_rows_by_tiles<Plan>({call, x, panel, first, least(left, rows)});
      return true;
    });
    deferred.finish();
  }
}

template <typename Format, Scheme kScheme>
void run_tiles(const QuantisedLinear& call, bool parallel) {
  const auto choose = [&](auto deep) {
    constexpr int kDeep = decltype(deep)::value;
    if (call.weight.float_scales) {
      run_tiles<TilePlan<Format, kScheme, kDeep, false, kAmxRows>>(call, parallel);
    } else if (call.rows <= kAmxRows / 2) {
      run_tiles<TilePlan<Format, kScheme, kDeep, true, kAmxRows / 2>>(call, parallel);
    } else {
      run_tiles<TilePlan<Format, kScheme, kDeep, true, kAmxRows>>(call, parallel);
    }
  };
  if (kScheme == Scheme::kMultipliers || call.weight.group_size == kMostGroup) {
    return choose(std::integral_constant<int, 2>{});
  }
  if constexpr (kScheme != Scheme::kMultipliers) choose(std::integral_constant<int, 1>{});
}

}  // namespace
}  // namespace ingot::INGOT_LEVEL

#endif

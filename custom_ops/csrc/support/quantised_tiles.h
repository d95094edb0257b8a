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

#include "amx.h"
#include "quantised_unit.h"

namespace ingot::INGOT_LEVEL {
namespace {

constexpr int64_t kColumnTiles = kPanel / kAmxWords;
constexpr int kChunkTiles = 4;           // of x
constexpr int64_t kUnitRows = 256;       // at most
constexpr int64_t kUnitBytes = 3 << 19;  // of x, to stay in the L2 cache beside the rest
constexpr int64_t kProduct = kAmxRows * kAmxWords;
constexpr int64_t kFarBytes = 8 << 20;  // of x and the output: L2 keeps neither, write past it

// Registers: the products of two planes or of two steps, codes, x.
constexpr int kProductTile = 0, kCodesTile = 2, kXTile = 4;

// How x of a Format meets codes of groups of 32 or 64 columns (kDeep 1), or of 128 (kDeep 2).
template <typename F, int deep, bool offsets, bool half_scales>
struct TilePlan {
  using Format = F;
  // Whose order of bytes unpacked codes have.
  using Order = std::conditional_t<kColumnsPerWord<Format> == 8, Nibbles8, Bytes8>;
  static constexpr int kDeep = deep;
  static constexpr int kPlanes = sizeof(typename Format::Value);
  static constexpr int kSteps = kChunkTiles / (kPlanes * kDeep);  // for each column of tiles
  // Steps that have begun after the one that is added: as there are registers, and one is stored.
  static constexpr int kAhead = kPlanes == 1 ? 3 : 2;
  static constexpr int64_t kMostColumns = 64 * kDeep;  // of a group
  static constexpr bool kOffsets = offsets;            // zero points that signed codes do not hold
  // add_step's shortcut is exact: sums of 8-bit x are below 2^22, and a float16 times 1.5 * 2^23
  // takes no more than a float's bits.
  static constexpr bool kByShift = kPlanes == 1 && half_scales;
};

constexpr int32_t kIntegersBits = 0x4b400000;  // of 1.5 * 2^23: floats count by ones here

// Of a panel: codes less their zero point, as signed bytes, and what scales the steps.
template <typename Plan>
struct PanelChunk {
  alignas(64) uint32_t codes[Plan::kSteps * Plan::kMostColumns / 4 * kPanel];  // in steps' order
  BlockHeader columns[Plan::kSteps];
  alignas(64) float shifts[Plan::kSteps][kPanel];

  // Takes the groups that the steps from `first` on (each pass has its own) multiply.
  void unpack(const QuantisedLinear& call, int64_t panel, int64_t first) {
    const QuantisedWeight& weight = call.weight;
    for (int64_t step = 0; step < Plan::kSteps; step++) {
      const int64_t g = (first + step) / call.passes;
      if (g >= weight.groups) {  // x is zero there
        memset(columns + step, 0, sizeof(BlockHeader));
        memset(shifts + step, 0, sizeof(shifts[step]));
        continue;
      }
      const uint8_t* block = weight.block(panel, g);
      columns[step].read(weight, block);
      if (!weight.zero_points) {
        for (int32_t& zero : columns[step].zeros) zero = call.middle;
      }
      const auto* words = reinterpret_cast<const uint32_t*>(block + weight.codes_offset);
      unpack_codes(words, weight.group_size, columns[step].zeros,
                   codes + step * weight.group_size / 4 * kAmxWords);
      for (int64_t c = 0; c < kPanel; c += kLanes) {
        store(shifts[step] + c, load<Vec>(columns[step].scales + c) * -0x1.8p23f);
        if (Plan::kOffsets) {
          store(columns[step].zeros + c, load<VecInt>(columns[step].zeros + c) - call.middle);
        }
      }
    }
  }

 private:
  using SignedBytes = int8_t __attribute__((vector_size(kLanes * 4)));

  static VecWord subtract(VecWord codes, VecWord zeros) {
    return bit_cast<VecWord>(bit_cast<SignedBytes>(codes) - bit_cast<SignedBytes>(zeros));
  }

  static void unpack_codes(const uint32_t* words, int64_t group_size, const int32_t* zeros,
                           uint32_t* to) {
    const int64_t column_words = Plan::kSteps * group_size / 4 * kAmxWords;
    VecWord from_all[kColumnTiles];
    for (int64_t t = 0; t < kColumnTiles; t++) {
      from_all[t] = Plan::kOffsets ? 0x80808080u - VecWord{}
                                   : load<VecWord>(zeros + t * kAmxWords) * 0x01010101u;
    }
    for (int64_t i = 0; i < group_size / kColumnsPerWord<typename Plan::Format>; i++) {
#pragma GCC unroll 4
      for (int64_t t = 0; t < kColumnTiles; t++, words += kAmxWords) {
        const auto word = load<VecWord>(words);
        uint32_t* column = to + t * column_words;
        for (int part = 0; part < Plan::Order::kWords; part++) {
          const auto codes = bit_cast<VecWord>(Plan::Order::unpack(word, part));
          store(column + part * kAmxWords, subtract(codes, from_all[t]));
        }
      }
      to += Plan::Order::kWords * kAmxWords;
    }
  }
};

// Steps in their order: the columns of tiles of one row of tiles, then those of the next. Tile
// instructions name registers as constants, hence the templates.
template <typename Plan>
class TileSteps {
 public:
  static constexpr int kSteps = Plan::kSteps;

  TileSteps(const PanelChunk<Plan>& chunk, int64_t group_size)
      : group_size_(group_size),
        codes_(chunk.codes),
        next_codes_(chunk.codes),
        end_(chunk.codes + kSteps * group_size / 4 * kPanel) {}

  // One step's x, of a chunk.
  template <int kStep>
  [[gnu::always_inline]] void load_x(const uint32_t* chunk) const {
    constexpr int kCount = Plan::kDeep * Plan::kPlanes, kFirst = kStep * kCount;
    const int64_t row = group_size_ / Plan::kDeep, tile = row / 4 * kAmxRows;
    chunk += kFirst * tile;
    tile_load<kXTile + kFirst>(chunk, row);
    if constexpr (kCount > 1) tile_load<kXTile + kFirst + 1>(chunk + tile, row);
    if constexpr (kCount > 2) {
      tile_load<kXTile + kFirst + 2>(chunk + 2 * tile, row);
      tile_load<kXTile + kFirst + 3>(chunk + 3 * tile, row);
    }
  }

  // Multiplies the next step, which is the kStep-th of its column of tiles.
  template <int kStep>
  [[gnu::always_inline]] void begin() {
    tile_load<kCodesTile>(next_codes_, kLineBytes);
    if constexpr (Plan::kDeep == 2) {
      tile_load<kCodesTile + 1>(next_codes_ + kProduct, kLineBytes);
    }
    next_codes_ += group_size_ / 4 * kAmxWords;
    if (next_codes_ == end_) next_codes_ = codes_;
    constexpr int kTo = product_tile(kStep);
    tile_zero<kTo>();
    if constexpr (Plan::kPlanes == 2) tile_zero<kTo + 1>();
    multiply<kStep, 0>();
    if constexpr (Plan::kDeep == 2) multiply<kStep, 1>();
  }

  // Stores the product of a column's kStep-th step.
  template <int kStep>
  [[gnu::always_inline]] static void end(int32_t* dots) {
    constexpr int kFrom = product_tile(kStep);
    tile_store<kFrom>(dots, kLineBytes);
    if constexpr (Plan::kPlanes == 2) tile_store<kFrom + 1>(dots + kProduct, kLineBytes);
  }

 private:
  static constexpr int product_tile(int step) {
    return Plan::kPlanes == 1 ? kProductTile + step % 2 : kProductTile;
  }

  template <int kStep, int kPart>
  [[gnu::always_inline]] static void multiply() {
    constexpr int kTo = product_tile(kStep);
    constexpr int kX = kXTile + (kStep * Plan::kDeep + kPart) * Plan::kPlanes;
    tile_dot_s8s8<kTo, kX, kCodesTile + kPart>();
    if constexpr (Plan::kPlanes == 2) {
      tile_dot_u8s8<kTo + 1, kX + 1, kCodesTile + kPart>();
    }
  }

  int64_t group_size_;
  const uint32_t* codes_;
  const uint32_t* next_codes_;
  const uint32_t* end_;
};

// a * b + c, rounded once; elsewhere the compiler may fuse or not.
inline Vec fused(Vec a, Vec b, Vec c) {
  const auto x = bit_cast<__m512>(a), y = bit_cast<__m512>(b), z = bit_cast<__m512>(c);
  return bit_cast<Vec>(_mm512_fmadd_ps(x, y, z));
}

// sums += a step's products, scaled, to the bit as multiply_block does it. By shift, an integer is
// made a float and scaled in one instruction: it is added to the bits of 1.5 * 2^23, and what that
// adds to the float (times the scale, the "shift") is taken off by the fused multiplication.
template <typename Plan>
[[gnu::always_inline]] inline void add_step(Vec (&sums)[kAmxRows], const int32_t* dots,
                                            const float* x_scales, const int32_t* x_offsets,
                                            const float* scales, const float* shifts,
                                            const int32_t* zeros) {
  const auto scale = load<Vec>(scales), shift = load<Vec>(shifts);
#pragma GCC unroll 16
  for (int r = 0; r < kAmxRows; r++) {
    auto dot = load<VecWord>(dots + r * kAmxWords);
    if (Plan::kPlanes == 2) dot = (dot << 8) + load<VecWord>(dots + kProduct + r * kAmxWords);
    if (Plan::kOffsets) dot += static_cast<uint32_t>(x_offsets[r]) * load<VecWord>(zeros);
    const Vec scaled = Plan::kByShift ? fused(bit_cast<Vec>(dot + kIntegersBits), scale, shift)
                                      : __builtin_convertvector(bit_cast<VecInt>(dot), Vec) * scale;
    sums[r] += scaled * x_scales[r];
  }
}

// x of a chunk: rows of tiles from `first_tile` on.
struct TiledRowsOfX {
  const Activations& x;  // [tiles of 16 rows][steps][64 columns][planes][16 rows]
  int64_t first_tile;
  int64_t tiles;
  int64_t first_step;

  int64_t step(int64_t tile) const { return (first_tile + tile) * x.groups + first_step; }
  const uint32_t* words(int64_t tile) const {
    return x.words + step(tile) * kAmxRows * x.words_per_group;
  }
};

// A panel's sums [rows][64]. The first chunk's begin with the bias instead, where it is not null;
// the last one's end in the output, rows of `columns`, where that is not null. `far`: the output's
// cache lines are written whole, straight to memory: to read them first takes as long as to write.
struct Sums {
  float* kept;
  const float* bias;
  float* out;
  int64_t columns;
  bool far;

  void end(const Vec (&sums)[kAmxRows], int64_t column) const {
    float* to = (out != nullptr ? out : kept) + column;
    const int64_t stride = out != nullptr ? columns : kPanel;
    if (out != nullptr && far) {
#pragma GCC unroll 16
      for (int r = 0; r < kAmxRows; r++) {
        _mm512_stream_ps(to + r * stride, bit_cast<__m512>(sums[r]));
      }
    } else {
#pragma GCC unroll 16
      for (int r = 0; r < kAmxRows; r++) store(to + r * stride, sums[r]);
    }
  }
};

// What is fetched meanwhile: so many cache lines for each column of tiles.
struct Ahead {
  const uint8_t* from;
  int64_t lines;

  void fetch() {
    for (int64_t i = 0; i < lines; i++, from += kLineBytes) __builtin_prefetch(from, 0, 2);
  }
};

// Adds one chunk's products to the sums. kStep: 0, 1 and so on.
template <typename Plan, int... kStep>
[[gnu::noinline]] void multiply_chunk(const PanelChunk<Plan>& chunk, const TiledRowsOfX& rows,
                                      int64_t group_size, Sums sums, Ahead ahead,
                                      std::integer_sequence<int, kStep...>) {
  alignas(64) int32_t space[2][Plan::kPlanes * kProduct];
  int32_t *dots = space[0], *next_dots = space[1];
  TileSteps<Plan> steps(chunk, group_size);
  (steps.template load_x<kStep>(rows.words(0)), ...);
  steps.template begin<0>();
  if constexpr (Plan::kAhead == 3) steps.template begin<1>();
  steps.template end<0>(dots);
  steps.template begin<(Plan::kAhead - 1) % Plan::kSteps>();
  for (int64_t t = 0; t < rows.tiles; t++) {
    const uint32_t* next_words = rows.words(t + 1 < rows.tiles ? t + 1 : t);
    const float* x_scales = rows.x.scales + rows.step(t) * kAmxRows;
    const int32_t* x_offsets = rows.x.offsets + rows.step(t) * kAmxRows;
    for (int64_t c = 0; c < kColumnTiles; c++) {
      const int64_t column = c * kAmxWords;
      Vec kept[kAmxRows];
      if (sums.bias != nullptr) {
#pragma GCC unroll 16
        for (int r = 0; r < kAmxRows; r++) kept[r] = load<Vec>(sums.bias + column);
      } else {
#pragma GCC unroll 16
        for (int r = 0; r < kAmxRows; r++) kept[r] = load<Vec>(sums.kept + r * kPanel + column);
      }
      const auto step = [&](auto number) __attribute__((always_inline)) {
        constexpr int i = decltype(number)::value, begun = i + Plan::kAhead;
        steps.template end<(i + 1) % Plan::kSteps>(next_dots);
        steps.template begin<begun % Plan::kSteps>();
        if (c + begun / Plan::kSteps == kColumnTiles - 1) {
          steps.template load_x<begun % Plan::kSteps>(next_words);
        }
        add_step<Plan>(kept, dots, x_scales + i * kAmxRows, x_offsets + i * kAmxRows,
                       chunk.columns[i].scales + column, chunk.shifts[i] + column,
                       chunk.columns[i].zeros + column);
        std::swap(dots, next_dots);
      };
      (step(std::integral_constant<int, kStep>{}), ...);
      sums.end(kept, column);
      ahead.fetch();
    }
    sums.kept += kAmxRows * kPanel;
    if (sums.out != nullptr) sums.out += kAmxRows * sums.columns;
  }
}

// Whole tiles of whole cache lines go to the output as they are summed up; others by way of the
// unit's sums.
template <typename Plan>
void many_rows_by_tiles(const Unit& unit) {
  alignas(64) float bias[kPanel], kept[kUnitRows * kPanel];
  PanelChunk<Plan> chunk;
  const QuantisedLinear& call = unit.call;
  const QuantisedWeight& weight = call.weight;
  const int64_t tiles = (unit.rows + kAmxRows - 1) / kAmxRows, column = unit.panel * kPanel;
  const int64_t blocks = (Plan::kSteps + call.passes - 1) / call.passes;
  const int64_t each = tiles * kColumnTiles * kLineBytes;
  const int64_t lines = (blocks * weight.block_bytes + each - 1) / each;
  const bool lines_fit =
      reinterpret_cast<uintptr_t>(call.out) % kLineBytes == 0 && call.columns % kAmxWords == 0;
  const bool whole = lines_fit && unit.rows % kAmxRows == 0 && column + kPanel <= call.columns;
  const bool far = call.rows * (call.depth + call.columns) * int64_t{sizeof(float)} >= kFarBytes;
  unit.begin(bias, 1);
  for (int64_t first = 0; first < unit.x.groups; first += Plan::kSteps) {
    chunk.unpack(call, unit.panel, first);
    const int64_t next = first + Plan::kSteps;
    float* out = call.out + unit.row * call.columns + column;
    const Sums sums = {kept, first == 0 ? bias : nullptr,
                       whole && next == unit.x.groups ? out : nullptr, call.columns, far};
    multiply_chunk(chunk, {unit.x, unit.row / kAmxRows, tiles, first}, weight.group_size, sums,
                   {weight.block(unit.panel, next / call.passes), lines},
                   std::make_integer_sequence<int, Plan::kSteps>());
  }
  if (!whole) unit.end(kept);
  if (far) _mm_sfence();  // what was written past the caches is seen before what follows
}

// A row of a tile of x; those beyond the last row, and the steps beyond the last group, are zero.
template <typename Plan>
void round_tile_row(const QuantisedLinear& call, int64_t row, const Activations& x, float* space) {
  const int64_t size = call.weight.group_size, columns = size / Plan::kDeep;
  const int64_t tile = row / kAmxRows, r = row % kAmxRows;
  const auto store_group = [&](int64_t at, const RoundedGroup& group) {
    const int64_t step = tile * x.groups + at;
    auto* to = reinterpret_cast<int8_t*>(x.words) + step * Plan::kPlanes * size * kAmxRows;
    to += r * columns;
    for (int64_t k = 0; k < size; k += columns) {
      for (int plane = 0; plane < Plan::kPlanes; plane++, to += kAmxRows * columns) {
        const int shift = plane + 1 < Plan::kPlanes ? 8 : 0;
        store_ordered<int8_t, typename Plan::Order>(group.values + k, columns, shift, to);
      }
    }
    x.scales[step * kAmxRows + r] = group.scale;
    if (Plan::kOffsets) x.offsets[step * kAmxRows + r] = -group.total(size);
  };
  static constexpr RoundedGroup kZeros = {};
  int64_t from = 0;
  if (row < call.rows) {
    round_groups<typename Plan::Format>(call, row, space, store_group);
    from = call.weight.groups * call.passes;
  }
  for (; from < x.groups; from++) store_group(from, kZeros);
}

// A thread begins with rows that it rounded where it can, which lie in its L2 cache, and takes
// panels of other rows when those are through.
template <typename Plan>
void run_tiles(const QuantisedLinear& call, bool parallel) {
  const auto up = [](int64_t value, int64_t unit) { return (value + unit - 1) / unit * unit; };
  const int64_t groups = call.weight.groups == 0 ? 1 : call.weight.groups * call.passes;
  const int64_t steps = up(groups, Plan::kSteps);
  const int64_t padded = up(call.rows, kAmxRows), size = call.weight.group_size;
  const Activations x = room<typename Plan::Format>(call, padded, steps);
  const int64_t fit = kUnitBytes / (x.row_words() * 4) / kAmxRows * kAmxRows;
  const int64_t most = fit < 2 * kAmxRows ? 2 * kAmxRows : fit < kUnitRows ? fit : kUnitRows;
  const int64_t units = (padded + most - 1) / most;
  const int64_t rows = up((padded + units - 1) / units, kAmxRows);  // of a unit
  int64_t* taken = none_taken(units);                               // panels, of each unit's rows
  const auto bytes = static_cast<uint8_t>(size / Plan::kDeep);
  const TileShape product, codes = {static_cast<uint8_t>(bytes / 4), 64}, row = {kAmxRows, bytes};
#pragma omp parallel if (parallel)
  {
    static thread_local Kept<float> space;
    float* row_space = grown(space, call.depth);
#pragma omp for schedule(static)
    for (int64_t r = 0; r < padded; r++) round_tile_row<Plan>(call, r, x, row_space);
    const Tiles tiles({product, product, codes, codes, row, row, row, row});
    take_shares(taken, units, [&](int64_t unit, int64_t panel) {
      if (panel >= call.weight.panels) return false;
      const int64_t first = unit * rows, left = call.rows - first;
      many_rows_by_tiles<Plan>({call, x, panel, first, left < rows ? left : rows});
      return true;
    });
  }
}

template <typename Format, bool kZeros>
void run_tiles(const QuantisedLinear& call, bool parallel) {
  constexpr bool kOffsets = kZeros && kColumnsPerWord<Format> == 4;  // 8 bits less 8 bits are 9
  const auto choose = [&](auto deep) {
    constexpr int kDeep = decltype(deep)::value;
    if (call.weight.float_scales) {
      run_tiles<TilePlan<Format, kDeep, kOffsets, false>>(call, parallel);
    } else {
      run_tiles<TilePlan<Format, kDeep, kOffsets, true>>(call, parallel);
    }
  };
  if (call.weight.group_size == 128) return choose(std::integral_constant<int, 2>{});
  choose(std::integral_constant<int, 1>{});
}

}  // namespace
}  // namespace ingot::INGOT_LEVEL

#endif

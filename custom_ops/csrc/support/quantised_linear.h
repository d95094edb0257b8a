// The product of linear_w4 and linear_w8; see custom_ops/quantised_linear.py for the formula.
//
// x is rounded to integers once, group by group. A unit of work is up to 48 rows and one panel of
// 64 output columns; it walks the panel's blocks in order. A block's sums of products are integers,
// exact; times the scales they are added to the outputs in float32, in the order of the groups
// whatever the other rows are.
//
// Few rows meet the codes as they are unpacked in registers, and the memory sets the pace. For
// many, a block is unpacked once into the L1 cache, and tiles of 6 rows pass over it.
#pragma once

#include <omp.h>

#include <vector>

#include "dot_int.h"
#include "half.h"
#include "quantised.h"

namespace ingot::INGOT_LEVEL {
namespace {

constexpr int64_t kRowBlock = 48;
constexpr int kTileRows = kLanes == 4 ? 4 : 6;
constexpr int64_t kFewRows = 6;           // at most, to be met in place
constexpr int64_t kPrefetchBytes = 8192;  // ahead
constexpr int64_t kLineBytes = 64;
constexpr int64_t kParallelWork = 1 << 15;  // multiplications worth waking the other threads for
constexpr int64_t kRun = 8;                 // words of bytes whose products 16 bits can sum

// Vectors of columns that a tile of `rows` rows holds in registers (32 at AVX-512, else 16).
constexpr int tile_vectors(int rows) {
  if (kLanes == 16) return 4;
  return rows == 1 ? 8 : rows == 2 ? 4 : 2;
}

// How codes and activations meet. A packed word unpacks to kWords words, each of which meets one
// word of x; kOrder says which of the packed word's columns those hold, in turn. kRun: sums of
// bytes stay in 16 bits for that many words, where no instruction adds them to 32 bits at once.

// 4-bit codes and 8-bit activations.
struct Nibbles8 {
  using Value = int8_t;
  static constexpr float kMost = 127.0f;  // of x
  static constexpr int kWords = 2;
  static constexpr int kOrder[] = {0, 4, 1, 5, 2, 6, 3, 7};
  static constexpr bool kRuns = !kHasVnni;
  static VecInt unpack(VecWord word, int i) {
    return bit_cast<VecInt>((word >> 4 * i) & 0x0f0f0f0fu);
  }
  static VecInt add(VecInt sum, VecInt codes, VecInt x) {
    return kRuns ? add_byte_pairs(sum, codes, x) : dot_bytes(sum, codes, x);
  }
};

// 4-bit codes and 16-bit activations.
struct Nibbles16 {
  using Value = int16_t;
  static constexpr float kMost = 32767.0f;
  static constexpr int kWords = 4;
  static constexpr int kOrder[] = {0, 1, 2, 3, 4, 5, 6, 7};
  static constexpr bool kRuns = false;
  static VecInt unpack(VecWord word, int i) {
    return bit_cast<VecInt>((word >> 4 * i) & 0x000f000fu);
  }
  static VecInt add(VecInt sum, VecInt codes, VecInt x) { return dot_pairs_of_16(sum, codes, x); }
};

// 8-bit codes and 16-bit activations.
struct Bytes16 {
  using Value = int16_t;
  static constexpr float kMost = 32767.0f;
  static constexpr int kWords = 2;
  static constexpr int kOrder[] = {0, 2, 1, 3};
  static constexpr bool kRuns = false;
  static VecInt unpack(VecWord word, int i) {
    return bit_cast<VecInt>((word >> 8 * i) & 0x00ff00ffu);
  }
  static VecInt add(VecInt sum, VecInt codes, VecInt x) { return dot_pairs_of_16(sum, codes, x); }
};

// 8-bit codes and 8-bit activations, held in 16 where no instruction multiplies full bytes without
// saturating.
struct Bytes8In16 : Bytes16 {
  static constexpr float kMost = 127.0f;
};

struct Bytes8 {
  using Value = int8_t;
  static constexpr float kMost = 127.0f;
  static constexpr int kWords = 1;
  static constexpr int kOrder[] = {0, 1, 2, 3};
  static constexpr bool kRuns = false;
  static VecInt unpack(VecWord word, int) { return bit_cast<VecInt>(word); }
  static VecInt add(VecInt sum, VecInt codes, VecInt x) { return dot_bytes(sum, codes, x); }
};

// A format whose codes are unpacked already.
template <typename Format>
struct Unpacked : Format {
  static constexpr int kWords = 1;
  static VecInt unpack(VecWord word, int) { return bit_cast<VecInt>(word); }
};

template <typename Format>
constexpr int64_t kColumnsPerWord = sizeof(Format::kOrder) / sizeof(int);  // of a packed word
template <typename Format>
constexpr int64_t kPerWord = 4 / sizeof(typename Format::Value);  // values in a word of x

// x as integers: words of it, a scale for each row's group (a group of each pass, one after the
// other), and what the zero points add to each
// sum of products, -(sum of the group's integers), times the zero point where all have the same. A
// row's words lie side by side ("rows"), or tile by tile [words][kTileRows].
struct Activations {
  uint32_t* words;
  float* scales;     // [rows][groups] or [tiles][groups][kTileRows]
  int32_t* offsets;  // likewise
  int64_t words_per_group;
  int64_t groups;

  int64_t row_words() const { return words_per_group * groups; }
};

// A group of a tile of rows, one after the other.
struct Rows {
  const uint32_t* words;
  const float* scales;
  const int32_t* offsets;
  int64_t row_words;
  int64_t groups;

  uint32_t word(int row, int64_t i) const { return words[row * row_words + i]; }
  float scale(int row) const { return scales[row * groups]; }
  int32_t offset(int row) const { return offsets[row * groups]; }
};

// The same, packed as a tile.
struct TiledRows {
  const uint32_t* words;
  const float* scales;
  const int32_t* offsets;

  uint32_t word(int row, int64_t i) const { return words[i * kTileRows + row]; }
  float scale(int row) const { return scales[row]; }
  int32_t offset(int row) const { return offsets[row]; }
};

// A block's scales and, where it has them, zero points as the products want them.
struct BlockHeader {
  alignas(64) float scales[kPanel];
  alignas(64) int32_t zeros[kPanel];

  void read(const QuantisedWeight& weight, const uint8_t* block) {
    for (int64_t i = 0; i < weight.codes_offset; i += kLineBytes) {
      __builtin_prefetch(block + i + kPrefetchBytes);
    }
    if (weight.float_scales) {
      memcpy(scales, block, sizeof(scales));
    } else {
      const auto* from = reinterpret_cast<const Half*>(block);
      for (int64_t i = 0; i < kPanel; i += kLanes) store(scales + i, load_floats(from + i));
    }
    if (!weight.zero_points) return;
    const uint8_t* from = block + weight.zeros_offset();
    for (int64_t i = 0; i < kPanel; i++) zeros[i] = from[i];
  }
};

// sums [kRows][64] += scales of x and weight times the dot products of one block. `words`: its
// codes, [count / Format::kWords][64]; `count`: words of x. Not inlined: the compiler would keep
// the sums in memory.
template <typename Format, int kRows, bool kZeros, bool kFetch, typename X>
[[gnu::noinline]] void multiply_block(X x, const uint32_t* words, int64_t count,
                                      const BlockHeader& header, float* sums) {
  constexpr int kVectors = tile_vectors(kRows);
  constexpr int64_t kStep = Format::kRuns ? kRun : 1 << 20;
  for (int64_t column = 0; column < kPanel; column += kVectors * kLanes) {
    VecInt dots[kRows][kVectors];
#pragma GCC unroll 6
    for (int row = 0; row < kRows; row++) {
#pragma GCC unroll 8
      for (int v = 0; v < kVectors; v++) {
        dots[row][v] = x.offset(row) - VecInt{};
        if (kZeros) dots[row][v] *= load<VecInt>(header.zeros + column + v * kLanes);
      }
    }
    const uint32_t* from = words + column;
    for (int64_t begin = 0; begin < count; begin += kStep) {
      const int64_t end = count - begin < kStep ? count : begin + kStep;
      VecInt run[kRows][kVectors];
#pragma GCC unroll 6
      for (int row = 0; row < kRows; row++) {
#pragma GCC unroll 8
        for (int v = 0; v < kVectors; v++) run[row][v] = Format::kRuns ? VecInt{} : dots[row][v];
      }
      for (int64_t i = begin; i < end; i += Format::kWords, from += kPanel) {
#pragma GCC unroll 4
        for (int v = 0; kFetch && v < kVectors * kLanes * 4; v += kLineBytes) {
          __builtin_prefetch(reinterpret_cast<const char*>(from) + v + kPrefetchBytes);
        }
#pragma GCC unroll 4
        for (int part = 0; part < Format::kWords; part++) {
          VecInt codes[kVectors];
#pragma GCC unroll 8
          for (int v = 0; v < kVectors; v++) {
            codes[v] = Format::unpack(load<VecWord>(from + v * kLanes), part);
          }
#pragma GCC unroll 6
          for (int row = 0; row < kRows; row++) {
            const VecInt value = static_cast<int32_t>(x.word(row, i + part)) - VecInt{};
#pragma GCC unroll 8
            for (int v = 0; v < kVectors; v++) {
              run[row][v] = Format::add(run[row][v], codes[v], value);
            }
          }
        }
      }
#pragma GCC unroll 6
      for (int row = 0; row < kRows; row++) {
#pragma GCC unroll 8
        for (int v = 0; v < kVectors; v++) {
          if (Format::kRuns) {
            dots[row][v] += multiply_pairs(run[row][v], 0x00010001 - VecInt{});
          } else {
            dots[row][v] = run[row][v];
          }
        }
      }
    }
#pragma GCC unroll 6
    for (int row = 0; row < kRows; row++) {
#pragma GCC unroll 8
      for (int v = 0; v < kVectors; v++) {
        float* sum = sums + row * kPanel + column + v * kLanes;
        const Vec scale = x.scale(row) * load<Vec>(header.scales + column + v * kLanes);
        store(sum, load<Vec>(sum) + __builtin_convertvector(dots[row][v], Vec) * scale);
      }
    }
  }
}

// A block's codes, each word its kWords.
template <typename Format>
void unpack_block(const uint32_t* words, int64_t count, uint32_t* to) {
  for (int64_t i = 0; i < count; i += Format::kWords, words += kPanel) {
    for (int64_t column = 0; column < kPanel; column += kLanes) {
      if (column * 4 % kLineBytes == 0) {
        __builtin_prefetch(reinterpret_cast<const char*>(words + column) + kPrefetchBytes);
      }
      const auto word = load<VecWord>(words + column);
#pragma GCC unroll 4
      for (int part = 0; part < Format::kWords; part++) {
        store(to + part * kPanel + column, Format::unpack(word, part));
      }
    }
    to += Format::kWords * kPanel;
  }
}

struct QuantisedLinear {
  const float* x;
  int64_t x_stride;
  int64_t depth;  // K
  QuantisedWeight weight;
  int32_t middle;             // the zero point of all where the weight holds none
  int64_t passes;             // 2: what rounding leaves of x is rounded too, and multiplied
  const float* bias;          // or null
  const float* input_scale;   // or null
  const int64_t* input_perm;  // or null
  float* out;
  int64_t rows;
  int64_t columns;
};

// One group of a row, `count` floats, as integers in Format's order; behind `count` zeros follow up
// to the group's size. Gives the scale and the sum of the integers, and in `rest`, unless it is
// null, what rounding left of x.
template <typename Format>
float round_group(const float* x, int64_t count, int64_t size, uint32_t* words, int32_t* total,
                  float* rest) {
  using Value = typename Format::Value;
  constexpr float kMost = Format::kMost;
  constexpr int64_t kOrdered = kColumnsPerWord<Format>;
  alignas(64) float padded[128];
  if (count < size) {
    memcpy(padded, x, static_cast<size_t>(count) * sizeof(float));
    for (int64_t i = count; i < size; i++) padded[i] = 0.0f;
    x = padded;
  }
  Vec largest = {}, probe = {};  // the probe becomes NaN where a value is not finite
  for (int64_t i = 0; i < size; i += kLanes) {
    const auto values = load<Vec>(x + i);
    largest = larger(values < 0.0f ? -values : values, largest);
    probe += values * 0.0f;
  }
  const float most = largest_lane(largest);
  const bool finite = sum_of_lanes(probe) == 0.0f;
  const float inverse = finite && most >= 0x1p-100f ? kMost / most : 0.0f;
  alignas(64) int32_t rounded[128];
  VecInt sum = {};
  for (int64_t i = 0; i < size; i += kLanes) {
    constexpr float kRound = 12582912.0f;  // 1.5 * 2^23: adding it rounds to an integer
    const Vec scaled = load<Vec>(x + i) * inverse;
    const VecInt value = bit_cast<VecInt>(scaled + kRound) - 0x4b400000;
    const VecInt kept = inverse == 0.0f ? VecInt{} : value;
    store(rounded + i, kept);
    sum += kept;
  }
  auto* values = reinterpret_cast<Value*>(words);
  for (int64_t i = 0; i < size; i += kOrdered) {
#pragma GCC unroll 8
    for (int64_t j = 0; j < kOrdered; j++) {
      values[i + j] = static_cast<Value>(rounded[i + Format::kOrder[j]]);
    }
  }
  alignas(64) int32_t lanes[kLanes];
  store(lanes, sum);
  *total = 0;
  for (int32_t lane : lanes) *total += lane;
  const float unit = inverse == 0.0f ? 0.0f : most * (1.0f / kMost);
  for (int64_t i = 0; rest != nullptr && i < count; i++) {
    rest[i] = x[i] - unit * static_cast<float>(rounded[i]);
  }
  return finite ? unit : __builtin_nanf("");
}

// x[row] as the weight's columns stand, in `space` where it is not so already.
inline const float* arranged_row(const QuantisedLinear& call, int64_t row, float* space) {
  const float* x = call.x + row * call.x_stride;
  if (call.input_perm == nullptr && call.input_scale == nullptr) return x;
  for (int64_t k = 0; k < call.depth; k++) {
    const float value = x[call.input_perm != nullptr ? call.input_perm[k] : k];
    space[k] = call.input_scale != nullptr ? value * call.input_scale[k] : value;
  }
  return space;
}

template <typename Format>
void round_row(const QuantisedLinear& call, int64_t row, float* space, uint32_t* words,
               float* scales, int32_t* offsets) {
  const float* x = arranged_row(call, row, space);
  const int64_t size = call.weight.group_size, words_per_group = size / kPerWord<Format>;
  float rest[128];
  for (int64_t g = 0; g < call.weight.groups; g++) {
    const int64_t left = call.depth - g * size, count = left < size ? left : size;
    const float* from = x + g * size;
    for (int64_t pass = 0; pass < call.passes; pass++, from = rest) {
      const int64_t at = g * call.passes + pass;
      int32_t total;
      scales[at] = round_group<Format>(from, count, size, words + at * words_per_group, &total,
                                       pass + 1 < call.passes ? rest : nullptr);
      offsets[at] = -total * (call.weight.zero_points ? 1 : call.middle);
    }
  }
}

// A tile of rows; those beyond the last are zero.
template <typename Format>
void round_tile(const QuantisedLinear& call, int64_t tile, const Activations& x, float* space) {
  const int64_t all = x.row_words();
  auto* words = reinterpret_cast<uint32_t*>(space + call.depth);
  auto* scales = reinterpret_cast<float*>(words + all);
  auto* offsets = reinterpret_cast<int32_t*>(scales + x.groups);
  for (int64_t r = 0; r < kTileRows; r++) {
    const int64_t row = tile * kTileRows + r;
    if (row < call.rows) {
      round_row<Format>(call, row, space, words, scales, offsets);
    } else {
      memset(words, 0, static_cast<size_t>(all + 2 * x.groups) * 4);
    }
    uint32_t* to = x.words + tile * kTileRows * all + r;
    for (int64_t i = 0; i < all; i++) to[i * kTileRows] = words[i];
    for (int64_t g = 0; g < x.groups; g++) {
      x.scales[(tile * x.groups + g) * kTileRows + r] = scales[g];
      x.offsets[(tile * x.groups + g) * kTileRows + r] = offsets[g];
    }
  }
}

// The outputs of a unit, from its bias to the last block.
struct Unit {
  const QuantisedLinear& call;
  const Activations& x;
  int64_t panel;
  int64_t row;
  int64_t rows;

  void begin(float* sums, int64_t padded_rows) const {
    const int64_t column = panel * kPanel;
    for (int64_t c = 0; c < kPanel; c++) {
      sums[c] = call.bias != nullptr && column + c < call.columns ? call.bias[column + c] : 0.0f;
    }
    for (int64_t r = 1; r < padded_rows; r++) {
      memcpy(sums + r * kPanel, sums, kPanel * sizeof(float));
    }
  }

  void end(const float* sums) const {
    const int64_t column = panel * kPanel, left = call.columns - column;
    const auto bytes = static_cast<size_t>(left < kPanel ? left : kPanel) * sizeof(float);
    for (int64_t r = 0; r < rows; r++) {
      memcpy(call.out + (row + r) * call.columns + column, sums + r * kPanel, bytes);
    }
  }
};

template <typename Format, bool kZeros, int kRows>
void few_rows(const Unit& unit) {
  alignas(64) float sums[kRows * kPanel];
  unit.begin(sums, kRows);
  const QuantisedWeight& weight = unit.call.weight;
  const Activations& x = unit.x;
  BlockHeader header;
  for (int64_t g = 0; g < weight.groups; g++) {
    const uint8_t* block = weight.block(unit.panel, g);
    header.read(weight, block);
    const auto* codes = reinterpret_cast<const uint32_t*>(block + weight.codes_offset);
    for (int64_t at = g * unit.call.passes; at < (g + 1) * unit.call.passes; at++) {
      const int64_t first = unit.row * x.groups + at;
      const Rows rows = {x.words + first * x.words_per_group, x.scales + first, x.offsets + first,
                         x.row_words(), x.groups};
      multiply_block<Format, kRows, kZeros, true>(rows, codes, x.words_per_group, header, sums);
    }
  }
  unit.end(sums);
}

template <typename Format, bool kZeros>
void many_rows(const Unit& unit) {
  alignas(64) float sums[kRowBlock * kPanel];
  alignas(64) uint32_t codes[128 * kPanel / kPerWord<Format>];
  const int64_t tiles = (unit.rows + kTileRows - 1) / kTileRows;
  unit.begin(sums, tiles * kTileRows);
  const QuantisedWeight& weight = unit.call.weight;
  const Activations& x = unit.x;
  BlockHeader header;
  for (int64_t g = 0; g < weight.groups; g++) {
    const uint8_t* block = weight.block(unit.panel, g);
    header.read(weight, block);
    unpack_block<Format>(reinterpret_cast<const uint32_t*>(block + weight.codes_offset),
                         x.words_per_group, codes);
    for (int64_t t = 0; t < tiles; t++) {
      for (int64_t at = g * unit.call.passes; at < (g + 1) * unit.call.passes; at++) {
        const int64_t tile = unit.row / kTileRows + t, first = (tile * x.groups + at) * kTileRows;
        const TiledRows rows = {x.words + first * x.words_per_group, x.scales + first,
                                x.offsets + first};
        multiply_block<Unpacked<Format>, kTileRows, kZeros, false>(
            rows, codes, x.words_per_group, header, sums + t * kTileRows * kPanel);
      }
    }
  }
  unit.end(sums);
}

template <typename Format, bool kZeros>
void run_few(const Unit& unit) {
  switch (unit.rows) {
    case 1:
      return few_rows<Format, kZeros, 1>(unit);
    case 2:
      return few_rows<Format, kZeros, 2>(unit);
    case 3:
      return few_rows<Format, kZeros, 3>(unit);
    case 4:
      return few_rows<Format, kZeros, 4>(unit);
    case 5:
      return few_rows<Format, kZeros, 5>(unit);
    default:
      return few_rows<Format, kZeros, 6>(unit);
  }
}

template <typename Format, bool kZeros>
void run(const QuantisedLinear& call) {
  // Kept, so that a step allocates nothing: the rounded x, and a row's space for each thread.
  static thread_local std::vector<uint32_t> shared;
  static thread_local std::vector<float> own;
  const int64_t groups = call.weight.groups * call.passes;
  const int64_t words_per_group = call.weight.group_size / kPerWord<Format>;
  const bool few = call.rows <= kFewRows;
  const int64_t tiles = (call.rows + kTileRows - 1) / kTileRows;
  const int64_t rows = few ? call.rows : tiles * kTileRows;
  const auto grow = [](auto& space, int64_t size) {
    if (space.size() >= static_cast<size_t>(size)) return;
    space = {};  // what is there need not be copied
    space.resize(static_cast<size_t>(size));
  };
  grow(shared, rows * groups * (words_per_group + 2));
  uint32_t* words = shared.data();
  auto* scales = reinterpret_cast<float*>(words + rows * groups * words_per_group);
  auto* offsets = reinterpret_cast<int32_t*>(scales + rows * groups);
  const Activations x = {words, scales, offsets, words_per_group, groups};
  const int64_t row_block = few ? call.rows : kRowBlock;
  const int64_t row_space = call.depth + groups * (words_per_group + 2);
  if (few) {
    grow(own, call.depth);
    for (int64_t r = 0; r < call.rows; r++) {
      round_row<Format>(call, r, own.data(), words + r * x.row_words(), scales + r * groups,
                        offsets + r * groups);
    }
  }
#pragma omp parallel if (call.rows * call.columns * call.depth > kParallelWork)
  {
    if (!few) {
      grow(own, row_space);
#pragma omp for schedule(static)
      for (int64_t tile = 0; tile < tiles; tile++) round_tile<Format>(call, tile, x, own.data());
    }
#pragma omp for collapse(2) schedule(dynamic, 1)
    for (int64_t panel = 0; panel < call.weight.panels; panel++) {
      for (int64_t row = 0; row < call.rows; row += row_block) {
        const int64_t left = call.rows - row;
        const Unit unit = {call, x, panel, row, left < row_block ? left : row_block};
        if (few) {
          run_few<Format, kZeros>(unit);
        } else {
          many_rows<Format, kZeros>(unit);
        }
      }
    }
  }
}

template <typename Format>
void run(const QuantisedLinear& call) {
  if (call.weight.zero_points) return run<Format, true>(call);
  run<Format, false>(call);
}

// Checks the arguments; false if only the output's shape was asked for.
inline bool read_call(const DLTensor* x, const DLTensor* weight, const DLTensor* bias,
                      const DLTensor* input_scale, const DLTensor* input_perm, int64_t out_features,
                      int64_t activation_bits, int64_t bits, DLTensor* out, QuantisedLinear* call) {
  expect(x, "x", kFloat32, {-1, -1});
  expect_contiguous(x, "x", 1);
  const int64_t depth = x->shape[1];
  const QuantisedWeight packed = quantised_weight(weight, bits, depth);
  if (out_features < 0 || packed.panels != (out_features + kPanel - 1) / kPanel) {
    fail("out_features is %lld, but the quantised weight has %lld panels of 64",
         static_cast<long long>(out_features), static_cast<long long>(packed.panels));
  }
  if (activation_bits != 8 && activation_bits != 16 && activation_bits != 32) {
    fail("activation_bits is %lld; it is 8, 16 or 32", static_cast<long long>(activation_bits));
  }
  const auto optional = [](const DLTensor* tensor, const char* name, DLDataType dtype,
                           int64_t size) {
    if (tensor == nullptr) return;
    expect(tensor, name, dtype, {size});
    expect_contiguous(tensor, name, 1);
  };
  optional(bias, "bias", kFloat32, out_features);
  optional(input_scale, "input_scale", kFloat32, depth);
  optional(input_perm, "input_perm", kInt64, depth);
  if (wants_shape(out, kFloat32, {x->shape[0], out_features})) return false;
  const auto* perm = input_perm != nullptr ? data_of<const int64_t>(input_perm) : nullptr;
  for (int64_t k = 0; perm != nullptr && k < depth; k++) {
    if (perm[k] < 0 || perm[k] >= depth) {
      fail("input_perm[%lld] is %lld, outside [0, %lld)", static_cast<long long>(k),
           static_cast<long long>(perm[k]), static_cast<long long>(depth));
    }
  }
  *call = {.x = data_of<const float>(x),
           .x_stride = x->strides[0],
           .depth = depth,
           .weight = packed,
           .middle = 1 << (bits - 1),
           .passes = activation_bits == 32 ? 2 : 1,
           .bias = bias != nullptr ? data_of<const float>(bias) : nullptr,
           .input_scale = input_scale != nullptr ? data_of<const float>(input_scale) : nullptr,
           .input_perm = perm,
           .out = data_of<float>(out),
           .rows = x->shape[0],
           .columns = out_features};
  return true;
}

}  // namespace
}  // namespace ingot::INGOT_LEVEL

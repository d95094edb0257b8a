// Intel AMX, at the level that has it (INGOT_AMX): eight registers of 16 rows of 64 bytes, and
// instructions that multiply them as matrices (Intel SDM, volume 1, chapter 18). Where
// INGOT_EMULATE_BF16 asks for it, the same in plain C++: the tests' way to the code of that level
// on a CPU without the instructions.
//
// dst [rows of a][16] += a [rows of a][4 or 2 values in each 32 bits] times b, whose row i holds
// for each column the values that meet word i of a's rows.
#pragma once

#include "vec.h"

namespace ingot::INGOT_LEVEL {
namespace {

#if defined(INGOT_AMX)
inline constexpr bool kHasAmx = true;
#else
inline constexpr bool kHasAmx = false;
#endif

inline constexpr int kTiles = 8;
inline constexpr int kAmxRows = 16;
inline constexpr int kAmxWords = 16;  // of 32 bits, in a row

// Of a tile: rows that are used, and bytes of each.
struct TileShape {
  uint8_t rows = kAmxRows;
  uint8_t bytes = kAmxWords * 4;
};

#if defined(INGOT_AMX) && !defined(INGOT_EMULATE_BF16)

// What LDTILECFG reads.
struct alignas(64) TileConfiguration {
  uint8_t palette = 1;
  uint8_t start_row = 0;
  uint8_t reserved[14] = {};
  uint16_t bytes[16] = {};
  uint8_t rows[16] = {};
};

// The calling thread's tiles, all zero, for as long as this lives.
class Tiles {
 public:
  explicit Tiles(const TileShape (&shapes)[kTiles]) {
    TileConfiguration configuration;
    for (int i = 0; i < kTiles; i++) {
      configuration.bytes[i] = shapes[i].bytes;
      configuration.rows[i] = shapes[i].rows;
    }
    __asm__ volatile("ldtilecfg %0" ::"m"(configuration));
  }
  Tiles() : Tiles({{}, {}, {}, {}, {}, {}, {}, {}}) {}
  ~Tiles() { __asm__ volatile("tilerelease" ::); }
  Tiles(const Tiles&) = delete;
  Tiles& operator=(const Tiles&) = delete;
};

template <int kTile>
[[gnu::always_inline]] inline void tile_zero() {
  __asm__ volatile("tilezero %%tmm%c0" ::"i"(kTile));
}

// Rows lie `stride` bytes apart.
template <int kTile>
[[gnu::always_inline]] inline void tile_load(const void* from, int64_t stride) {
  __asm__ volatile("tileloadd (%0,%1,1), %%tmm%c2" ::"r"(from), "r"(stride), "i"(kTile) : "memory");
}

// The same with the hint that it need not stay in the L1 cache.
template <int kTile>
[[gnu::always_inline]] inline void tile_load_once(const void* from, int64_t stride) {
  __asm__ volatile("tileloaddt1 (%0,%1,1), %%tmm%c2" ::"r"(from), "r"(stride), "i"(kTile)
                   : "memory");
}

template <int kTile>
[[gnu::always_inline]] inline void tile_store(void* to, int64_t stride) {
  __asm__ volatile("tilestored %%tmm%c2, (%0,%1,1)" ::"r"(to), "r"(stride), "i"(kTile) : "memory");
}

// Pairs of bfloat16, summed in float32: the products of the pairs' low halves in the order of the
// words, those of the high halves likewise, then both and dst. Subnormals count as zero.
template <int kDst, int kA, int kB>
[[gnu::always_inline]] inline void tile_dot_bf16() {
  __asm__ volatile("tdpbf16ps %%tmm%c2, %%tmm%c1, %%tmm%c0" ::"i"(kDst), "i"(kA), "i"(kB));
}

// Four signed bytes of a with four signed ones of b, in 32-bit integers that wrap.
template <int kDst, int kA, int kB>
[[gnu::always_inline]] inline void tile_dot_s8s8() {
  __asm__ volatile("tdpbssd %%tmm%c2, %%tmm%c1, %%tmm%c0" ::"i"(kDst), "i"(kA), "i"(kB));
}

// The same with unsigned bytes in a.
template <int kDst, int kA, int kB>
[[gnu::always_inline]] inline void tile_dot_u8s8() {
  __asm__ volatile("tdpbusd %%tmm%c2, %%tmm%c1, %%tmm%c0" ::"i"(kDst), "i"(kA), "i"(kB));
}

#elif defined(INGOT_AMX)

struct EmulatedTile {
  TileShape shape;
  uint32_t words[kAmxRows][kAmxWords];
};
inline thread_local EmulatedTile t_tiles[kTiles];

class Tiles {
 public:
  explicit Tiles(const TileShape (&shapes)[kTiles]) {
    for (int i = 0; i < kTiles; i++) t_tiles[i] = {shapes[i], {}};
  }
  Tiles() : Tiles({{}, {}, {}, {}, {}, {}, {}, {}}) {}
  ~Tiles() { memset(static_cast<void*>(t_tiles), 0xff, sizeof(t_tiles)); }
  Tiles(const Tiles&) = delete;
  Tiles& operator=(const Tiles&) = delete;
};

template <int kTile>
void tile_zero() {
  memset(t_tiles[kTile].words, 0, sizeof(t_tiles[kTile].words));
}

template <int kTile>
void tile_load(const void* from, int64_t stride) {
  tile_zero<kTile>();
  const TileShape shape = t_tiles[kTile].shape;
  for (int row = 0; row < shape.rows; row++) {
    memcpy(t_tiles[kTile].words[row], static_cast<const char*>(from) + row * stride, shape.bytes);
  }
}

template <int kTile>
void tile_load_once(const void* from, int64_t stride) {
  tile_load<kTile>(from, stride);
}

template <int kTile>
void tile_store(void* to, int64_t stride) {
  const TileShape shape = t_tiles[kTile].shape;
  for (int row = 0; row < shape.rows; row++) {
    memcpy(static_cast<char*>(to) + row * stride, t_tiles[kTile].words[row], shape.bytes);
  }
}

// Calls body(a's word, b's word, column) for each word of a row of a, for each row.
template <int kDst, int kA, int kB, typename Begin, typename Body, typename End>
void emulate_dot(Begin begin, Body body, End end) {
  for (int row = 0; row < t_tiles[kA].shape.rows; row++) {
    for (int column = 0; column < t_tiles[kB].shape.bytes / 4; column++) {
      begin();
      for (int i = 0; i < t_tiles[kA].shape.bytes / 4; i++) {
        body(t_tiles[kA].words[row][i], t_tiles[kB].words[i][column]);
      }
      end(t_tiles[kDst].words[row][column]);
    }
  }
}

template <int kDst, int kA, int kB>
void tile_dot_bf16() {
  float low, high;
  const auto part = [](uint32_t bits) { return bit_cast<float>(bits); };
  emulate_dot<kDst, kA, kB>(
      [&] { low = high = 0.0f; },
      [&](uint32_t a, uint32_t b) {
        low += part(a << 16) * part(b << 16);
        high += part(a & 0xffff0000u) * part(b & 0xffff0000u);
      },
      [&](uint32_t& sum) { sum = bit_cast<uint32_t>(bit_cast<float>(sum) + (low + high)); });
}

template <typename A, int kDst, int kA, int kB>
void emulate_dot_bytes() {
  uint32_t sum;
  emulate_dot<kDst, kA, kB>([&] { sum = 0; },
                            [&](uint32_t a, uint32_t b) {
                              for (int i = 0; i < 32; i += 8) {
                                const auto x = static_cast<A>(a >> i);
                                const auto y = static_cast<int8_t>(b >> i);
                                sum += static_cast<uint32_t>(x * y);
                              }
                            },
                            [&](uint32_t& to) { to += sum; });
}

template <int kDst, int kA, int kB>
void tile_dot_s8s8() {
  emulate_dot_bytes<int8_t, kDst, kA, kB>();
}

template <int kDst, int kA, int kB>
void tile_dot_u8s8() {
  emulate_dot_bytes<uint8_t, kDst, kA, kB>();
}

#else

// Named, so that templates compile that are no level's without tiles.
class Tiles {
 public:
  explicit Tiles(const TileShape (&shapes)[kTiles]);
};
template <int kTile>
void tile_zero();
template <int kTile>
void tile_load(const void* from, int64_t stride);
template <int kTile>
void tile_store(void* to, int64_t stride);
template <int kDst, int kA, int kB>
void tile_dot_bf16();

#endif

}  // namespace
}  // namespace ingot::INGOT_LEVEL

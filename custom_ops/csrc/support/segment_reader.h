// Reads a segment of a sequence in the cache, and sums it for the rows of a tile.
#pragma once

#include <algorithm>
#include <type_traits>

#include "attention_amx.h"
#include "attention_rows.h"

namespace ingot::INGOT_LEVEL {
namespace {

// The first of a step's blocks.
int64_t step_of(int64_t page) { return page / kStepBlocks * kStepBlocks; }

// The blocks of one KV head that hold a segment of a sequence: [page, end) of its table.
struct Stretch {
  char* cache = nullptr;
  int64_t stride = 0;
  const int64_t* table = nullptr;
  int64_t page = 0, end = 0;

  char* block(int64_t at) const { return cache + table[at] * stride; }
};

// Those that its new tokens see; if there are sinks, perhaps others between.
Stretch stretch_of(const AttentionCall& call, int64_t sequence, int64_t kv_head, int64_t segment) {
  const int64_t tokens = call.seq_lens[sequence];
  const int64_t seen = call.n_sink > 0 ? 0 : call.first_seen(tokens - call.new_tokens(sequence));
  const int64_t begin = std::max(segment * kSegmentTokens, seen);
  const int64_t end = std::min((segment + 1) * kSegmentTokens, tokens);
  return {call.cache + kv_head * call.head_bytes, call.cache_stride,
          call.block_table + sequence * call.pages, begin / kBlock, (end + kBlock - 1) / kBlock};
}

// Reads the first step's blocks from memory.
template <typename T>
void load(const Stretch& stretch, int64_t dim) {
  Ahead ahead(1);
  const int64_t end = std::min(stretch.end, step_of(stretch.page) + kStepBlocks);
  for (int64_t i = stretch.page; i < end; i++) {
    ahead.add(view_block<T>(stretch.block(i), dim, stretch.block(i)));
  }
  ahead.load();
}

// A tile of one KV head of one sequence, and where it reads.
template <typename T>
class Reader : public Rows<kTileRows> {
 public:
  explicit Reader(const AttentionCall& call) : call_(call) {
    tile.weights = weights_;
    tile.take_space(space_);
  }

  // Takes up to kTileRows rows, from `first_row` on.
  void begin(int64_t of_sequence, int64_t of_kv_head, int64_t first_row) {
    sequence = of_sequence;
    kv_head = of_kv_head;
    Rows::begin(call_, sequence, kv_head, first_row);
    take_queries(call_, how_);
    if constexpr (kByTiles<T>) lay_out_queries(tile, call_.dim, tiles_.own.queries);
  }

  // Sums the segment into tile.segment, and fetches the first blocks of what is summed `next`.
  void sum(int64_t segment, const Stretch& next) {
    stretch_ = stretch_of(call_, sequence, kv_head, segment);
    next_ = next;
    begin_segment(tile, call_.dim);
    if (call_.n_sink > 0) {
      see_sinks(call_);
      walk_segment(segment);
    }
    see_window(call_);
    walk_segment(segment);
    end_segment(tile);
  }

  int64_t sequence = -1, kv_head = -1;

 private:
  void walk_segment(int64_t segment) {
    const int64_t begin = segment * kSegmentTokens, end = begin + kSegmentTokens;
    const bool in_place = padded(call_.dim) == call_.dim;
    const auto viewed = [&](int64_t page, int) {
      return view_block<T>(stretch_.block(page), call_.dim, ahead_of(page));
    };
    const auto unpacked = [&](int64_t page, int place) {
      float* k = scratch_ + place * kBlock * padded(call_.dim);
      return unpack_block<T>(stretch_.block(page), call_.dim, k,
                             k + kStepTokens * padded(call_.dim));
    };
    if constexpr (kByTiles<T>) {
      auto& [own, cached] = tiles_;
      if (in_place) return walk_by_tiles<T>(tile, how_, begin, end, viewed, own, cached);
      return walk_by_tiles<float>(tile, how_, begin, end, unpacked, own, cached);
    } else if (tile.rows <= FewRows::kLimit && in_place) {
      walk<FewRows, T>(tile, how_, begin, end, viewed);
    } else if (std::is_same_v<T, float> && in_place) {
      walk<ManyRows, T>(tile, how_, begin, end, viewed);
    } else {
      walk<ManyRows, float>(tile, how_, begin, end, unpacked);
    }
  }

  // The block one step further: blocks lie anywhere, the hardware does not guess the next.
  const char* ahead_of(int64_t page) const {
    if (page + kStepBlocks < stretch_.end) return stretch_.block(page + kStepBlocks);
    const int64_t place = step_of(next_.page) + page % kStepBlocks;
    return place >= next_.page && place < next_.end ? next_.block(place) : nullptr;
  }

  const AttentionCall& call_;
  Stretch stretch_, next_;
  Scores how_{call_.dim, call_.scale, call_.softcap};
  alignas(64) float weights_[kTileRows][kStepTokens], space_[Tile::kSpaceRows][kRowFloats];
  alignas(64) float scratch_[2 * kStepTokens * kMaxHeadDim];
  struct AsTiles {
    RowTiles own;
    CachedTiles<kCacheParts<T>> cached;
  };
  std::conditional_t<kByTiles<T>, AsTiles, char> tiles_;
};

}  // namespace
}  // namespace ingot::INGOT_LEVEL

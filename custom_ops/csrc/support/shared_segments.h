// Sequences of few rows, whose segments the threads share (Flash-Decoding): what each thread sums,
// and how it becomes the rows' results, in the order of the segments.
#pragma once

#include <algorithm>
#include <utility>
#include <vector>

#include "kept.h"
#include "segment_reader.h"

namespace ingot::INGOT_LEVEL {
namespace {

// How many segments of a KV head are done, and how many its first partial sum is of.
struct Progress {
  int64_t done, added;
};

// A sequence of few rows, whose segments the threads share: for each KV head and segment a partial
// sum, the rows' max, total and sums.
struct Shared {
  int64_t rows, first, segments;  // those that are seen
  float* partials;
  Progress* heads;
};

// What a thread sums at once.
struct Unit {
  int64_t sequence, kv_head, segment;
};

// Where a KV head's partial sum of its i'th segment is kept.
float* partial_of(const AttentionCall& call, const Shared& shared, int64_t kv_head, int64_t i) {
  return shared.partials + (kv_head * shared.segments + i) * shared.rows * (2 + call.dim);
}

template <int kCapacity>
void keep(const Partial<kCapacity>& from, int64_t rows, int64_t dim, float* to) {
  for (int64_t r = 0; r < rows; r++, to += 2 + dim) {
    to[0] = from.max[r];
    to[1] = from.total[r];
    memcpy(to + 2, from.sums[r], dim * sizeof(float));
  }
}

template <int kCapacity>
void take(const float* from, int64_t rows, int64_t dim, Partial<kCapacity>& to) {
  for (int64_t r = 0; r < rows; r++, from += 2 + dim) {
    to.max[r] = from[0];
    to.total[r] = from[1];
    memcpy(to.sums[r], from + 2, dim * sizeof(float));
  }
}

// `count` more segments of the reader's KV head are kept; who keeps the last adds all up.
template <typename T>
void count_done(const AttentionCall& call, const Shared& shared, Reader<T>& reader, int64_t count) {
  Progress& head = shared.heads[reader.kv_head];
  if (__atomic_add_fetch(&head.done, count, __ATOMIC_ACQ_REL) < shared.segments) return;
  Tile& tile = reader.tile;
  take(partial_of(call, shared, reader.kv_head, 0), tile.rows, call.dim, tile.all);
  for (int64_t i = head.added; i < shared.segments; i++) {
    take(partial_of(call, shared, reader.kv_head, i), tile.rows, call.dim, tile.segment);
    add_segment(tile, call.dim);
  }
  finish(tile, call.dim);
}

// Adds up a KV head's segments: those from the first on at once, for as long as one thread has them
// in order, others when all are there.
template <typename T>
class Adding {
 public:
  Adding(const AttentionCall& call, const Shared* shared) : call_(call), shared_(shared) {}

  // The reader begins with a KV head.
  void begin() { added_ = 0; }

  // What the reader summed.
  void add(Reader<T>& reader, int64_t segment) {
    const Shared& shared = shared_[reader.sequence];
    const int64_t i = segment - shared.first;
    if (i == added_) {
      add_segment(reader.tile, call_.dim);
      if (++added_ == shared.segments) finish(reader.tile, call_.dim);
      return;
    }
    hand_in(reader);
    keep(reader.tile.segment, reader.tile.rows, call_.dim,
         partial_of(call_, shared, reader.kv_head, i));
    count_done(call_, shared, reader, 1);
  }

  // Keeps what has been added: the reader goes on elsewhere.
  void hand_in(Reader<T>& reader) {
    if (added_ <= 0) return;
    const Shared& shared = shared_[reader.sequence];
    const int64_t count = std::exchange(added_, kNoMore);
    if (count == shared.segments) return;
    keep(reader.tile.all, reader.tile.rows, call_.dim,
         partial_of(call_, shared, reader.kv_head, 0));
    shared.heads[reader.kv_head].added = count;
    count_done(call_, shared, reader, count);
  }

 private:
  static constexpr int64_t kNoMore = -1;

  const AttentionCall& call_;
  const Shared* shared_;
  int64_t added_ = 0;  // of the reader's KV head, from the first on; kNoMore: those are handed in
};

// The sequences of few rows, cut into units. Kept from call to call: a step allocates nothing.
class Plan {
 public:
  void make(const AttentionCall& call) {
    shared.assign(call.sequences, {});
    units.clear();
    has_prompts = false;
    int64_t floats = 0;
    for (int64_t b = 0; b < call.sequences; b++) {
      const int64_t rows = rows_of(call, b);
      has_prompts |= rows > kTileRows;
      if (rows == 0 || rows > kTileRows) continue;
      const int64_t first = stretch_of(call, b, 0, 0).page * kBlock / kSegmentTokens;
      const int64_t count = segments(call.seq_lens[b]) - first;
      shared[b] = {rows, first, count, nullptr, nullptr};
      floats += call.kv_heads * count * rows * (2 + call.dim);
      for (int64_t h = 0; h < call.kv_heads; h++) {
        for (int64_t s = first; s < first + count; s++) units.push_back({b, h, s});
      }
    }
    Progress* heads = grown(heads_, call.sequences * call.kv_heads);
    std::fill_n(heads, call.sequences * call.kv_heads, Progress{});
    float* partials = grown(partials_, floats);
    for (Shared& of : shared) {
      of.partials = partials;
      of.heads = heads;
      partials += call.kv_heads * of.segments * of.rows * (2 + call.dim);
      heads += call.kv_heads;
    }
    writes_its_own = call.sequences == 1 && !units.empty() && lies_in_order(call);
  }

  int64_t count() const { return static_cast<int64_t>(units.size()); }

  std::vector<Shared> shared;  // of each sequence; of those of many rows nothing
  std::vector<Unit> units;
  bool has_prompts = false;  // sequences of many rows
  // Each unit's tokens are written by who sums it, where no other unit reads them: nobody waits.
  bool writes_its_own = false;

 private:
  // Whether each new token of the only sequence goes where its block table has it, and nowhere
  // else.
  static bool lies_in_order(const AttentionCall& call) {
    const int64_t past = call.seq_lens[0] - call.new_tokens(0);
    const int64_t* end = call.block_table + ceil_div(call.seq_lens[0], kBlock);
    for (const int64_t* block = call.block_table + past / kBlock; block < end; block++) {
      if (std::count(call.block_table, end, *block) > 1) return false;
    }
    for (int64_t t = 0; t < call.tokens; t++) {
      const int64_t slot = call.slot_mapping[t], position = past + t - call.query_start[0];
      const bool is_new = t >= call.query_start[0] && t < call.query_start[1];
      if (!is_new && slot >= 0) return false;
      if (is_new && slot != call.block_table[position / kBlock] * kBlock + position % kBlock)
        return false;
    }
    return true;
  }

  Kept<float> partials_;
  Kept<Progress> heads_;
};

}  // namespace
}  // namespace ingot::INGOT_LEVEL

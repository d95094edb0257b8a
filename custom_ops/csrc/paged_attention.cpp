// paged_attention: writes K and V into the cache, then attends; see custom_ops/paged_attention.py.
#include <omp.h>

#include <algorithm>
#include <type_traits>
#include <utility>
#include <vector>

#include "attention_amx.h"
#include "ops.h"
#include "prompt_amx.h"
#include "shares.h"
#include "sizes.h"

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

// How many rows of a prompt a thread takes at once, if there are `rows` of all KV heads. What is
// computed does not depend on it.
template <typename T>
int64_t rows_at_once(int64_t rows) {
  if constexpr (!kByTiles<T>) return kTileRows;
  const int64_t share = ceil_div(rows, 8 * omp_get_num_threads());
  return std::clamp<int64_t>(ceil_div(share, kAmxRows) * kAmxRows, kTileRows, kPromptRows);
}

// Up to rows_at_once() rows.
template <typename T>
void attend(const AttentionCall& call, int64_t sequence, int64_t kv_head, int64_t first_row,
            int64_t count) {
  if constexpr (kByTiles<T>) return Prompt<T>(call).attend(sequence, kv_head, first_row, count);
  Reader<T> reader(call);
  reader.begin(sequence, kv_head, first_row);
  Tile& tile = reader.tile;
  for (int64_t s = reader.first_segment(call); s < segments(reader.last_position() + 1); s++) {
    reader.sum(s, stretch_of(call, sequence, kv_head, s + 1));
    add_segment(tile, call.dim);
  }
  finish(tile, call.dim);
}

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

// Tokens beyond the last sequence are padding, and so are those of a sequence of length 0.
void clear_padding(const AttentionCall& call) {
  const int64_t row = call.query_heads * call.dim;
  for (int64_t b = 0; b < call.sequences; b++) {
    if (call.seq_lens[b] != 0) continue;
    memset(call.out + call.query_start[b] * row, 0, call.new_tokens(b) * row * sizeof(float));
  }
  const int64_t used = call.query_start[call.sequences];
  memset(call.out + used * row, 0, (call.tokens - used) * row * sizeof(float));
}

template <typename T>
void write_slot(const AttentionCall& call, int64_t token, int64_t kv_head) {
  const int64_t slot = call.slot_mapping[token];
  if (slot < 0) return;
  float rotated[kMaxHeadDim];
  const float* k = call.rotary.turned(call.k.at(token, kv_head), call.dim, token, rotated);
  char* head = call.cache + slot / kBlock * call.cache_stride + kv_head * call.head_bytes;
  write_token<T>(head, call.dim, slot % kBlock, k, call.v.at(token, kv_head));
}

// The sequences of few rows, cut into units. Kept from call to call: a step allocates nothing.
class Plan {
 public:
  void make(const AttentionCall& call) {
    shared.assign(call.sequences, {});
    units.clear();
    int64_t floats = 0;
    for (int64_t b = 0; b < call.sequences; b++) {
      const int64_t rows = rows_of(call, b);
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

Stretch stretch_of(const AttentionCall& call, const Unit& unit) {
  return stretch_of(call, unit.sequence, unit.kv_head, unit.segment);
}

// Reads what the calling thread begins with, if that is known to be there.
template <typename T>
void load_first(const AttentionCall& call, const Plan& plan) {
  if (call.n_sink > 0) return;
  const int64_t thread = omp_get_thread_num(), threads = omp_get_num_threads();
  const int64_t unit = stretch_begin(thread, threads, plan.count());
  if (unit < stretch_begin(thread + 1, threads, plan.count())) {
    load<T>(stretch_of(call, plan.units[unit]), call.dim);
  }
}

// Writes the new tokens of a unit of the only sequence.
template <typename T>
void write_unit(const AttentionCall& call, const Unit& unit) {
  const int64_t past = call.seq_lens[0] - call.new_tokens(0);
  for (int64_t i = 0; i < call.new_tokens(0); i++) {
    if ((past + i) / kSegmentTokens != unit.segment) continue;
    write_slot<T>(call, call.query_start[0] + i, unit.kv_head);
  }
}

// A thread goes on with the unit behind its last: the first blocks have been fetched.
template <typename T>
void attend_units(const AttentionCall& call, const Plan& plan, int64_t* taken) {
  Reader<T> reader(call);
  Adding<T> adding(call, plan.shared.data());
  take_stretches(taken, omp_get_num_threads(), plan.count(), [&](int64_t at, int64_t end) {
    const Unit& unit = plan.units[at];
    if (plan.writes_its_own) write_unit<T>(call, unit);
    if (reader.sequence != unit.sequence || reader.kv_head != unit.kv_head) {
      adding.hand_in(reader);
      adding.begin();
      reader.begin(unit.sequence, unit.kv_head, 0);
    }
    reader.sum(unit.segment, at + 1 < end ? stretch_of(call, plan.units[at + 1]) : Stretch{});
    adding.add(reader, unit.segment);
  });
  adding.hand_in(reader);
}

template <typename T>
void run(const AttentionCall& call) {
  static thread_local Plan own_plan;
  Plan& plan = own_plan;  // the team's
  plan.make(call);
  int64_t* taken = none_taken(omp_get_max_threads());
  clear_padding(call);
#pragma omp parallel
  {
    wake<T>();
    load_first<T>(call, plan);  // while others are not there yet
    if (!plan.writes_its_own) {
#pragma omp for collapse(2) schedule(static)  // ends in a barrier: all K and V are written
      for (int64_t t = 0; t < call.tokens; t++) {
        for (int64_t h = 0; h < call.kv_heads; h++) {
          write_slot<T>(call, t, h);
        }
      }
    }
    attend_units<T>(call, plan, taken);
    for (int64_t b = 0; b < call.sequences; b++) {
      const int64_t rows = rows_of(call, b);
      if (rows <= kTileRows) continue;
      // The last rows see most: they come first, and the short ones fill the gaps at the end.
      const int64_t stretch = rows_at_once<T>(rows * call.kv_heads);
#pragma omp for collapse(2) schedule(dynamic, 1) nowait
      for (int64_t i = ceil_div(rows, stretch) - 1; i >= 0; i--) {
        for (int64_t h = 0; h < call.kv_heads; h++) {
          attend<T>(call, b, h, i * stretch, std::min(rows - i * stretch, stretch));
        }
      }
    }
  }
}

}  // namespace

void paged_attention(const DLTensor* q, const DLTensor* k, const DLTensor* v, DLTensor* kv_cache,
                     const DLTensor* slot_mapping, const DLTensor* query_start,
                     const DLTensor* seq_lens, const DLTensor* block_table,
                     const DLTensor* rotary_cos, const DLTensor* rotary_sin, double scale,
                     const int64_t* window, const double* softcap, int64_t n_sink,
                     const char* kv_dtype, DLTensor* out0) {
  AttentionCall call =
      check_attention({q, k, v, kv_cache, slot_mapping, query_start, seq_lens, block_table,
                       rotary_cos, rotary_sin, scale, window, softcap, n_sink, kv_dtype});
  if (wants_shape(out0, kFloat32, {call.tokens, call.query_heads, call.dim})) return;
  call.out = data_of<float>(out0);
  switch (call.kv_type) {
    case KvType::float32:
      return run<float>(call);
    case KvType::bfloat16:
      return run<Bfloat>(call);
    case KvType::float16:
      return run<Half>(call);
    case KvType::int8:
      return run<int8_t>(call);
  }
}

}  // namespace ingot::INGOT_LEVEL

// paged_attention: writes K and V into the cache, then attends; see custom_ops/paged_attention.py.
#include <omp.h>

#include <algorithm>
#include <type_traits>
#include <vector>

#include "attention_amx.h"
#include "ops.h"

namespace ingot::INGOT_LEVEL {
namespace {

// A tile of one KV head of one sequence, and where it reads.
template <typename T>
class Reader {
 public:
  Reader(const AttentionCall& call, int64_t sequence, int64_t kv_head, int64_t first_row)
      : call_(call),
        cache_(call.cache + kv_head * call.head_bytes),
        table_(call.block_table + sequence * call.pages) {
    const int64_t group = call.group(), count = call.new_tokens(sequence);
    const int64_t left = count * group - first_row;
    tile.rows = static_cast<int>(left < kTileRows ? left : kTileRows);
    for (int r = 0; r < tile.rows; r++) {
      const int64_t index = (first_row + r) / group;
      const int64_t token = call.query_start[sequence] + index;
      const int64_t head = kv_head * group + (first_row + r) % group;
      float rotated[kMaxHeadDim];
      const float* q = call.rotary.turned(call.q.at(token, head), call.dim, token, rotated);
      begin_row(tile, r, q, call.out + (token * call.query_heads + head) * call.dim, how_);
      positions_[r] = call.seq_lens[sequence] - count + index;
    }
    if constexpr (kByTiles<T>) lay_out_queries(tile, call.dim, tiles_.own);
  }

  int64_t last_position() const { return positions_[tile.rows - 1]; }
  int64_t first_segment() const {
    return call_.n_sink > 0 ? 0 : call_.first_seen(positions_[0]) / kSegmentTokens;
  }

  // Sums the segment into tile.segment.
  void sum(int64_t segment) {
    begin_segment(tile, call_.dim);
    if (call_.n_sink > 0) {
      for (int r = 0; r < tile.rows; r++) {
        const int64_t window = call_.first_seen(positions_[r]);
        tile.first[r] = 0;
        tile.last[r] = (window < call_.n_sink ? window : call_.n_sink) - 1;
      }
      walk_segment(segment);
    }
    for (int r = 0; r < tile.rows; r++) {
      tile.first[r] = call_.first_seen(positions_[r]);
      tile.last[r] = positions_[r];
    }
    walk_segment(segment);
    end_segment(tile);
  }

  Tile tile;

 private:
  void walk_segment(int64_t segment) {
    const int64_t begin = segment * kSegmentTokens, end = begin + kSegmentTokens;
    const bool in_place = padded(call_.dim) == call_.dim;
    const auto viewed = [&](int64_t page, int) {
      return view_block<T>(block(page), call_.dim, ahead_of(page));
    };
    const auto unpacked = [&](int64_t page, int place) {
      float* k = scratch_ + place * kBlock * padded(call_.dim);
      return unpack_block<T>(block(page), call_.dim, k, k + kStepTokens * padded(call_.dim));
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

  char* block(int64_t page) const { return cache_ + table_[page] * call_.cache_stride; }

  // Bytes to the block one step further: blocks lie anywhere, the hardware does not guess the next.
  int64_t ahead_of(int64_t page) const {
    const int64_t next = page + kStepBlocks;
    return next * kBlock <= last_position() ? block(next) - block(page) : 0;
  }

  const AttentionCall& call_;
  char* cache_;
  const int64_t* table_;
  Scores how_{call_.dim, call_.scale, call_.softcap};
  int64_t positions_[kTileRows] = {};
  alignas(64) float scratch_[2 * kStepTokens * kMaxHeadDim];
  struct AsTiles {
    RowTiles<kExactParts> own;
    CachedTiles cached;
  };
  std::conditional_t<kByTiles<T>, AsTiles, char> tiles_;
};

int64_t segments(int64_t tokens) { return (tokens + kSegmentTokens - 1) / kSegmentTokens; }

template <typename T>
void attend(const AttentionCall& call, int64_t sequence, int64_t kv_head, int64_t first_row) {
  Reader<T> reader(call, sequence, kv_head, first_row);
  Tile& tile = reader.tile;
  for (int64_t s = reader.first_segment(); s < segments(reader.last_position() + 1); s++) {
    reader.sum(s);
    add_segment(tile, call.dim);
  }
  finish(tile, call.dim);
}

// The segments of one sequence that several threads share, because it has few rows: for each KV
// head and segment the rows' max, total and sums; and how many of a head's segments are done.
struct Shared {
  int64_t sequence, rows, segments;
  float* partials;
  int* done;
};

template <typename T>
void attend_segment(const AttentionCall& call, const Shared& shared, int64_t kv_head,
                    int64_t segment) {
  Reader<T> reader(call, shared.sequence, kv_head, 0);
  Tile& tile = reader.tile;
  reader.sum(segment);
  const int64_t row_floats = 2 + call.dim;
  float* head = shared.partials + kv_head * shared.segments * shared.rows * row_floats;
  float* to = head + segment * shared.rows * row_floats;
  for (int r = 0; r < tile.rows; r++, to += row_floats) {
    to[0] = tile.segment.max[r];
    to[1] = tile.segment.total[r];
    memcpy(to + 2, tile.segment.sums[r], call.dim * sizeof(float));
  }
  if (__atomic_add_fetch(&shared.done[kv_head], 1, __ATOMIC_ACQ_REL) < shared.segments) return;
  for (int64_t s = 0; s < shared.segments; s++) {
    for (int r = 0; r < tile.rows; r++, head += row_floats) {
      tile.segment.max[r] = head[0];
      tile.segment.total[r] = head[1];
      memcpy(tile.segment.sums[r], head + 2, call.dim * sizeof(float));
    }
    add_segment(tile, call.dim);
  }
  finish(tile, call.dim);
}

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

// Where the segments of shared sequences go. Kept from call to call: a step allocates nothing.
struct Workspace {
  std::vector<float> partials;
  std::vector<int> done;
  std::vector<Shared> shared;
};

int64_t rows_of(const AttentionCall& call, int64_t sequence) {
  return call.seq_lens[sequence] > 0 ? call.new_tokens(sequence) * call.group() : 0;
}

// For each sequence its Shared, of 0 segments if each tile is one thread's.
void plan(const AttentionCall& call, Workspace& workspace) {
  workspace.shared.assign(call.sequences, {});
  int64_t floats = 0, heads = 0;
  for (int64_t b = 0; b < call.sequences; b++) {
    const int64_t rows = rows_of(call, b), count = segments(call.seq_lens[b]);
    if (rows == 0 || rows > kTileRows || count < 2) continue;
    workspace.shared[b] = {b, rows, count, nullptr, nullptr};
    floats += call.kv_heads * count * rows * (2 + call.dim);
    heads += call.kv_heads;
  }
  workspace.partials.resize(std::max<size_t>(workspace.partials.size(), floats));
  workspace.done.assign(heads, 0);
  float* partials = workspace.partials.data();
  int* done = workspace.done.data();
  for (Shared& shared : workspace.shared) {
    if (shared.segments == 0) continue;
    shared.partials = partials;
    shared.done = done;
    partials += call.kv_heads * shared.segments * shared.rows * (2 + call.dim);
    done += call.kv_heads;
  }
}

template <typename T>
void run(const AttentionCall& call) {
  static thread_local Workspace workspace;
  plan(call, workspace);
  const Shared* all_shared = workspace.shared.data();
  clear_padding(call);
#pragma omp parallel
  {
#pragma omp for collapse(2) schedule(static)  // ends in a barrier: all K and V are written
    for (int64_t t = 0; t < call.tokens; t++) {
      for (int64_t h = 0; h < call.kv_heads; h++) {
        write_slot<T>(call, t, h);
      }
    }
    for (int64_t b = 0; b < call.sequences; b++) {
      const Shared& shared = all_shared[b];
      // A thread that goes on with the segment behind its last has the first blocks fetched.
      const int64_t chunk =
          std::max<int64_t>(1, call.kv_heads * shared.segments / (4 * omp_get_num_threads()));
#pragma omp for collapse(2) schedule(dynamic, chunk) nowait
      for (int64_t h = 0; h < call.kv_heads; h++) {
        for (int64_t s = 0; s < shared.segments; s++) attend_segment<T>(call, shared, h, s);
      }
      if (shared.segments > 0) continue;
      // The last tiles see most: they come first, and the short ones fill the gaps at the end.
      const int64_t tiles = (rows_of(call, b) + kTileRows - 1) / kTileRows;
#pragma omp for collapse(2) schedule(dynamic, 1) nowait
      for (int64_t tile = tiles - 1; tile >= 0; tile--) {
        for (int64_t h = 0; h < call.kv_heads; h++) attend<T>(call, b, h, tile * kTileRows);
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

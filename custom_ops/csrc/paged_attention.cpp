// paged_attention: writes K and V into the cache, then attends; see custom_ops/paged_attention.py.
#include <omp.h>

#include <algorithm>

#include "ops.h"
#include "prompt_amx.h"
#include "segment_reader.h"
#include "shared_segments.h"
#include "shares.h"
#include "sizes.h"
#include "workspace.h"

namespace ingot::INGOT_LEVEL {
namespace {

// How many rows of a prompt a thread takes at once, if there are `rows` of all KV heads. What is
// computed does not depend on it.
template <typename T>
int64_t rows_at_once(int64_t rows) {
  if constexpr (!kByTiles<T>) return kTileRows;
  const int64_t share = ceil_div(rows, 8 * omp_get_num_threads());
  return std::clamp<int64_t>(ceil_div(share, kAmxRows) * kAmxRows, kTileRows, kPromptRows);
}

// Bytes that attend() needs.
template <typename T>
int64_t bytes_of_prompt(const AttentionCall& call) {
  if constexpr (kByTiles<T>) return Prompt<T>::bytes(call);
  return 0;
}

// Up to rows_at_once() rows.
template <typename T>
void attend(const AttentionCall& call, int64_t sequence, int64_t kv_head, int64_t first_row,
            int64_t count, char* memory) {
  if constexpr (kByTiles<T>)
    return Prompt<T>(call, memory).attend(sequence, kv_head, first_row, count);
  Reader<T> reader(call);
  reader.begin(sequence, kv_head, first_row);
  Tile& tile = reader.tile;
  for (int64_t s = reader.first_segment(call); s < segments(reader.last_position() + 1); s++) {
    reader.sum(s, stretch_of(call, sequence, kv_head, s + 1));
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
  const int64_t each = plan.has_prompts ? bytes_of_prompt<T>(call) : 0;
  const Workspace prompts(omp_get_max_threads() * each);
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
    char* memory = prompts.as<char>() + omp_get_thread_num() * each;
    for (int64_t b = 0; b < call.sequences; b++) {
      const int64_t rows = rows_of(call, b);
      if (rows <= kTileRows) continue;
      // The last rows see most: they come first, and the short ones fill the gaps at the end.
      const int64_t stretch = rows_at_once<T>(rows * call.kv_heads);
#pragma omp for collapse(2) schedule(dynamic, 1) nowait
      for (int64_t i = ceil_div(rows, stretch) - 1; i >= 0; i--) {
        for (int64_t h = 0; h < call.kv_heads; h++) {
          attend<T>(call, b, h, i * stretch, std::min(rows - i * stretch, stretch), memory);
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

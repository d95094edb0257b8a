// Prompts by tiles: up to 512 rows that read one KV head of one sequence. A segment's keys and
// values are laid out once for all of them; then 16 rows after the other walk its steps. Products
// and softmax are of about the same length and need different parts of the CPU: while a step's
// scores become weights, row by row, the tiles multiply the next step's queries with keys and the
// last step's weights with values.
#pragma once

#include <new>

#include "prompt_rows.h"

namespace ingot::INGOT_LEVEL {
namespace {

// T: of the cache.
template <typename T>
class Prompt {
  static constexpr int kParts = kCacheParts<T>;
  using Laid = LaidStep<kParts>;
  using Seen = RowsStep<kParts>;

 public:
  // What it needs of memory, on a cache line, in whole cache lines.
  static int64_t bytes(const AttentionCall& call) {
    return tile_count(call) * int64_t{sizeof(Words)} + kGroups * int64_t{sizeof(PromptRows)} +
           space_rows(call) * int64_t{sizeof(RowSpace)};
  }

  Prompt(const AttentionCall& call, char* memory) : call_(call) {
    const int64_t keys = key_tiles(call.dim) * kParts, values = value_tiles(call.dim) * kParts;
    const int64_t queries = depths(call.dim) * kRowParts;
    auto* tiles = reinterpret_cast<Words*>(memory);
    memory += tile_count(call) * int64_t{sizeof(Words)};
    const auto as_parts = [](Words* words) { return reinterpret_cast<Words(*)[kParts]>(words); };
    for (Laid& step : steps_) {
      step.tiles = {as_parts(tiles), as_parts(tiles + keys)};
      tiles += keys + values;
    }
    rows_ = new (memory) PromptRows[kGroups];
    auto* space = reinterpret_cast<RowSpace*>(rows_ + kGroups);
    const int64_t width = depths(call.dim) * kDepth, beside = groups_beside(call);
    for (int g = 0; g < kGroups; g++, tiles += queries) {
      float* first = space[g / beside * kSpaceRows].floats + g % beside * width;
      rows_[g].tile.take_space(reinterpret_cast<float (*)[kRowFloats]>(first));
      rows_[g].queries = reinterpret_cast<Words(*)[kMaxHeadDim / kDepth][kRowParts]>(tiles);
    }
  }

  // Computes `count` rows from `first_row` on.
  void attend(int64_t sequence, int64_t kv_head, int64_t first_row, int64_t count) {
    const int64_t dim = call_.dim;
    head_ = call_.cache + kv_head * call_.head_bytes;
    table_ = call_.block_table + sequence * call_.pages;
    groups_ = static_cast<int>(ceil_div(count, kAmxRows));
    for (int g = 0; g < groups_; g++) {
      rows_[g].begin(call_, sequence, kv_head, first_row + g * kAmxRows);
      rows_[g].ready = false;
    }
    const int64_t tokens = rows_[groups_ - 1].last_position() + 1, end = segments(tokens);
    const Tiles registers;
    for (int64_t s = rows_[0].first_segment(call_); s < end; s++) {
      for (int g = 0; g < groups_; g++) rows_[g].begin_segment();
      const int64_t next = (s + 1) * kSegmentTokens, next_end = next + kSegmentTokens;
      last_segment_ = s + 1 == end;
      ahead_ = {next / kBlock, ceil_div(tokens < next_end ? tokens : next_end, kBlock)};
      if (call_.n_sink > 0) {
        for (int g = 0; g < groups_; g++) rows_[g].see_sinks(call_);
        walk_segment(s * kSegmentTokens);
      }
      for (int g = 0; g < groups_; g++) rows_[g].see_window(call_);
      walk_segment(s * kSegmentTokens);
      for (int g = 0; g < groups_; g++) {
        rows_[g].need_sums(dim);
        end_segment(rows_[g].tile);
        add_segment(rows_[g].tile, dim);
      }
    }
    for (int g = 0; g < groups_; g++) finish(rows_[g].tile, dim);
  }

 private:
  static constexpr int kGroups = kPromptRows / kAmxRows;
  static constexpr int kSpaceRows = TileOf<kAmxRows>::kSpaceRows;

  static int64_t tile_count(const AttentionCall& call) {
    return kSegmentSteps * (key_tiles(call.dim) + value_tiles(call.dim)) * kParts +
           kGroups * depths(call.dim) * kRowParts;
  }
  // Rows of so many groups lie side by side.
  static int64_t groups_beside(const AttentionCall& call) {
    return kRowFloats / (depths(call.dim) * kDepth);
  }
  static int64_t space_rows(const AttentionCall& call) {
    return ceil_div(kGroups, groups_beside(call)) * kSpaceRows;
  }

  char* block(int64_t page) const { return head_ + table_[page] * call_.cache_stride; }

  void walk_segment(int64_t begin) {
    if (padded(call_.dim) == call_.dim) {
      walk<T>(begin, [&](int64_t page, int) {
        const bool more = page + kStepBlocks < end_page_;
        return view_block<T>(block(page), call_.dim, more ? block(page + kStepBlocks) : nullptr);
      });
    } else {
      walk<float>(begin, [&](int64_t page, int place) {
        float* k = scratch_ + place * kBlock * padded(call_.dim);
        return unpack_block<T>(block(page), call_.dim, k, k + kStepTokens * padded(call_.dim));
      });
    }
  }

  // Adds what the rows see of the segment that begins there.
  template <typename Item, typename View>
  void walk(int64_t segment, View view) {
    const int64_t first = rows_[0].tile.first[0];
    const TileOf<kAmxRows>& last = rows_[groups_ - 1].tile;
    const int64_t seen = last.last[last.rows - 1] + 1;
    const int64_t end = seen < segment + kSegmentTokens ? seen : segment + kSegmentTokens;
    end_page_ = ceil_div(end, kBlock);
    const int64_t begin = first > segment ? first / kStepTokens * kStepTokens : segment;
    for (int64_t p = begin; p < end; p += kStepTokens) {
      lay_out<Item>(steps_[(p - segment) / kStepTokens], p, first, end, view);
    }
    int count = 0;
    for (int g = 0; g < groups_; g++) {
      walk_steps(rows_[g].tile, begin, end, [&](int64_t p) {
        const auto [from, to] = seen_tokens(rows_[g].tile, p);
        if (from >= to) return;
        const Laid& step = steps_[(p - segment) / kStepTokens];
        seen_[count++] = {&rows_[g], &step, static_cast<int>(from / kBlock),
                          static_cast<int>(ceil_div(to, kBlock)), sees_all(rows_[g].tile, step)};
      });
    }
    add_steps<Item>(count, view);
  }

  // Lays out the tokens [first, end) of the step at `position`.
  template <typename Item, typename View>
  void lay_out(Laid& step, int64_t position, int64_t first, int64_t end, View view) {
    const int64_t dim = call_.dim;
    const int from = static_cast<int>(first > position ? first - position : 0);
    const int to = static_cast<int>(end - position < kStepTokens ? end - position : kStepTokens);
    StepBlocks<Item> blocks;
    Ahead ahead(kStepBlocks * depths(dim) + kBlock / 2);
    const int from_block = from / kBlock, to_block = static_cast<int>(ceil_div(to, kBlock));
    for (int b = from_block; b < to_block; b++) {
      blocks[b] = view(position / kBlock + b, b);
      ahead.add(blocks[b]);
    }
    const auto finite = [&](uint64_t seen) {
      take_scales(step, blocks, from_block, to_block);
      return lay_out_tokens<Item>(blocks, from_block, to_block, seen, step, ahead);
    };
    step.position = position;
    step.bad = 0;
    const uint64_t seen = bits_between(from, to);
    if (finite(seen)) [[likely]]
      return;
    step.bad = not_finite(blocks, from_block, to_block, dim);
    finite(seen & ~step.bad);
  }

  template <typename Item>
  bool lay_out_tokens(const StepBlocks<Item>& blocks, int from, int to, uint64_t seen, Laid& step,
                      Ahead& ahead) {
    const bool whole = seen == ~uint64_t{0};
    const auto keys = whole ? lay_out_keys<false, Item, kParts> : lay_out_keys<true, Item, kParts>;
    const auto values =
        whole ? lay_out_values<false, Item, kParts> : lay_out_values<true, Item, kParts>;
    Halves largest = keys(blocks, from, to, call_.dim, seen, step.tiles, ahead);
    const Halves others = values(blocks, from, to, call_.dim, seen, step.tiles, ahead);
    largest = largest > others ? largest : others;
    if (step.scaled) mask_scales(step, seen, largest);
    return all_finite(largest);
  }

  template <typename Item, typename View>
  void add_steps(int count, View view) {
    const auto nothing = [] {};
    if (count > 0) {
      seen_[0].rows->make_ready(call_, how_);
      score(seen_[0], space_[0], nothing);
    }
    for (int i = 0; i < count; i++) {
      const Seen& of = seen_[i];
      TileOf<kAmxRows>& tile = of.rows->tile;
      fetch(i, count);
      if (i + 1 < count) seen_[i + 1].rows->make_ready(call_, how_);
      tile.weights = space_[i % 3].scores();
      const bool raise = of.whole && keep_maxima(tile, 0, tile.rows);
      copy_scales(tile, *of.step);
      if (!raise) raise_maxima(of);
      const int64_t calls = (i > 0 ? weight_calls(seen_[i - 1]) : 0) +
                            (i + 1 < count ? score_calls(seen_[i + 1]) : 0);
      SoftmaxBeside softmax(of, raise, space_[i % 3], calls);
      if (i + 1 < count) score(seen_[i + 1], space_[(i + 1) % 3], softmax);
      if (i > 0) add(seen_[i - 1], space_[(i - 1) % 3], softmax);
      softmax.finish();
      if (of.rows->begun) rescale_group(tile, 0, tile.rows, call_.dim);
      if (of.step->bad != 0) [[unlikely]]
        add_in_floats<Item>(of, view);
    }
    if (count > 0) add(seen_[count - 1], space_[(count - 1) % 3], nothing);
  }

  // Fetches a share of what is read and written soon: where the rows of the i'th step write to, the
  // next rows' queries, the next segment's keys and values.
  void fetch(int i, int count) {
    const Seen& of = seen_[i];
    const int64_t begin = of.step->position % kSegmentTokens / kStepTokens * kRowsFetched;
    for (int64_t r = begin; r < begin + kRowsFetched; r++) {
      const PromptRows* next = of.rows + 1;
      const bool more = next < rows_ + groups_ && !next->ready && r < next->tile.rows;
      for (int64_t d = 0; d < call_.dim; d += kLineBytes / sizeof(float)) {
        if (last_segment_ && r < of.rows->tile.rows) {
          __builtin_prefetch(of.rows->tile.out[r] + d, 1, 2);
        }
        if (more) __builtin_prefetch(next->query(call_, static_cast<int>(r)) + d, 0, 2);
      }
    }
    if (call_.n_sink > 0) return;  // whose pages follow is not known
    const int64_t bytes = 2 * part_bytes(sizeof(T), call_.dim);
    const int64_t lines = kSegmentTokens / kBlock * ceil_div(bytes, kLineBytes);
    ahead_.fetch(ceil_div(lines, count), bytes, [&](int64_t page) { return block(page); });
  }

  // Whether every row sees the whole step, of which no score is capped.
  bool sees_all(const TileOf<kAmxRows>& tile, const Laid& step) const {
    return all_see(tile, step.position) && step.bad == 0 && how_.softcap == 0.0f;
  }

  static void copy_scales(StepScales& to, const Laid& step) {
    if (step.scaled) {
      to = step;
    } else {
      to.scaled = false;
    }
  }

  // Finishes the scores of a step, and raises the maxima to them.
  void raise_maxima(const Seen& of) {
    TileOf<kAmxRows>& tile = of.rows->tile;
    see(tile, of.step->position);
    if (of.step->bad != 0) hide(tile, of.step->bad, true);
    INGOT_LEVEL::raise_maxima(tile, 0, how_);
  }

  int64_t score_calls(const Seen& of) const { return depths(call_.dim) * (of.to - of.from); }
  int64_t weight_calls(const Seen& of) const {
    const auto [first, end] = depths_between(of.from, of.to);
    return columns_of(call_.dim) * (end - first);
  }

  template <typename Beside>
  void score(const Seen& of, StepRows& to, Beside& beside) const {
    multiply_queries(of.rows->queries[0], of.step->tiles.keys, of.from, of.to, call_.dim,
                     to.scores()[0], beside);
  }

  template <typename Beside>
  void add(const Seen& of, const StepRows& weights, Beside& beside) const {
    const auto multiply = of.rows->begun ? multiply_weights<true, kParts, const Line*, Beside>
                                         : multiply_weights<false, kParts, const Line*, Beside>;
    multiply(weights.lines[0], of.step->tiles.values, of.from, of.to, call_.dim,
             of.rows->tile.segment.sums[0], beside);
    of.rows->begun = true;
  }

  // The step of rows that see infinity or NaN in it.
  template <typename Item, typename View>
  void add_in_floats(const Seen& of, View view) {
    TileOf<kAmxRows>& tile = of.rows->tile;
    of.rows->need_sums(call_.dim);
    tile.weights = float_weights_;
    see(tile, of.step->position);
    hide(tile, of.step->bad, false);
    StepBlocks<Item> blocks;
    for (int b = of.from; b < of.to; b++) blocks[b] = view(of.step->position / kBlock + b, b);
    take_scales(tile, blocks, of.from, of.to);
    add_blocks<ManyRows>(tile, blocks, of.from, of.to, how_);
  }

  static constexpr int kRowsFetched = kAmxRows / kSegmentSteps;

  const AttentionCall& call_;
  Scores how_{call_.dim, call_.scale, call_.softcap};
  char* head_ = nullptr;
  const int64_t* table_ = nullptr;
  int groups_ = 0;
  int64_t end_page_ = 0;
  bool last_segment_ = false;
  SegmentAhead ahead_;
  PromptRows* rows_;
  Laid steps_[kSegmentSteps];
  Seen seen_[kSegmentSteps * kPromptRows / kAmxRows];
  StepRows space_[3];
  alignas(64) float float_weights_[kAmxRows][kStepTokens];
  alignas(64) float scratch_[2 * kStepTokens * kMaxHeadDim];
};

}  // namespace
}  // namespace ingot::INGOT_LEVEL

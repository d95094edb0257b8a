// What prompt_amx.h works on: the steps of a segment, 16 rows and what they see of a step, and
// their softmax in shares.
#pragma once

#include "attention_amx.h"
#include "attention_rows.h"

namespace ingot::INGOT_LEVEL {
namespace {

inline constexpr int kPromptRows = 512;
inline constexpr int kSegmentSteps = kSegmentTokens / kStepTokens;
inline constexpr int64_t kLineBytes = 64;

// A step as tiles, for all rows that see some of it.
template <int kParts>
struct LaidStep : StepScales {
  int64_t position;
  uint64_t bad;  // tokens that hold infinity or NaN, which the tiles have as zeros
  StepTiles<kParts> tiles;
};

struct PromptRows : Rows<kAmxRows> {
  bool ready;                                         // the queries are there
  bool begun;                                         // the segment's sums are
  Words (*queries)[kMaxHeadDim / kDepth][kRowParts];  // as many as dim has

  // The first sums of a segment take the place of what was there.
  void begin_segment() {
    begun = false;
    begin_totals(tile);
  }

  void need_sums(int64_t dim) {
    if (!begun) clear_sums(tile, dim);
    begun = true;
  }

  void make_ready(const AttentionCall& call, const Scores& how) {
    if (ready) return;
    ready = true;
    take_queries(call, how);
    lay_out_queries(tile, call.dim, queries);
  }
};

struct RowSpace {
  float floats[kRowFloats];
};

// The cache's blocks of a segment, fetched into the L2 cache a few lines at a time.
struct SegmentAhead {
  int64_t page = 0, end = 0;
  int64_t offset = 0;  // in the block of that page

  // block(page) is where it begins, of so many bytes.
  template <typename Block>
  void fetch(int64_t lines, int64_t bytes, Block block) {
    for (; lines > 0 && page < end; lines--) {
      __builtin_prefetch(block(page) + offset, 0, 2);
      offset += kLineBytes;
      if (offset >= bytes) offset = 0, page++;
    }
  }
};

// What 16 rows see of a step: its blocks [from, to).
template <int kParts>
struct RowsStep {
  PromptRows* rows;
  const LaidStep<kParts>* step;
  int from, to;
  bool whole;  // every row sees all of it, and no score is capped
};

// A step's scores of 16 rows, which become weights in place.
struct StepRows {
  Line lines[kAmxRows][kWeightLines];

  float (*scores()) [kStepTokens] { return reinterpret_cast<float (*)[kStepTokens]>(lines); }
};
static_assert(sizeof(StepRows) == kAmxRows * kStepTokens * sizeof(float));

// What becomes of a row's scores: noinline, they are called at many places.
using SoftenRow = void(TileOf<kAmxRows>& tile, int r, Line* weights);

inline auto to_lines(Line* weights) {
  return [=](int w, int p, VecWord words) { store(weights[w * kRowParts + p].words, words); };
}

template <int kDepths>
[[gnu::noinline]] void soften_prompt_row(TileOf<kAmxRows>& tile, int r, Line* weights) {
  soften_row<kDepths>(tile, r, to_lines(weights));
}

[[gnu::noinline]] inline void soften_whole_prompt_row(TileOf<kAmxRows>& tile, int r,
                                                      Line* weights) {
  soften_whole_row(tile, r, to_lines(weights));
}

// The softmax of 16 rows, to be called `calls` times: each does its share of the rows.
class SoftmaxBeside {
 public:
  // `raise`: the rows see the whole step, and their maxima may have to rise yet.
  template <int kParts>
  SoftmaxBeside(const RowsStep<kParts>& of, bool raise, StepRows& rows, int64_t calls)
      : tile_(of.rows->tile),
        soften_(raise                     ? soften_whole_prompt_row
                : of.to * kBlock > kDepth ? soften_prompt_row<kStepTokens / kDepth>
                                          : soften_prompt_row<1>),
        lines_(rows.lines),
        calls_(calls) {}

  void operator()() {
    for (due_ += tile_.rows; due_ >= calls_ && row_ < tile_.rows; due_ -= calls_) next();
  }
  void finish() {
    while (row_ < tile_.rows) next();
  }

 private:
  void next() {
    soften_(tile_, row_, lines_[row_]);
    row_++;
  }

  TileOf<kAmxRows>& tile_;
  SoftenRow* soften_;
  Line (*lines_)[kWeightLines];
  int64_t calls_, due_ = 0;
  int row_ = 0;
};

}  // namespace
}  // namespace ingot::INGOT_LEVEL

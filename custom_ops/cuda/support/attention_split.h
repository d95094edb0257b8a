// A tile's keys shared by several blocks, or a block's by its warps, whose sums are then combined
// (Dao et al., "Flash-Decoding for long-context inference", 2023).
#pragma once

#include <algorithm>
#include <optional>

#include "attention_rows.h"

namespace ingot::cuda {

// Of one row: the largest score and the sum of e^(score - largest), scores as powers of 2.
using RowSum = float2;

// Softmax sums of `parts` parts of the keys, each [rows] RowSums and [rows][dim] sums of weights
// times V, unlike `rows` where only some count.
struct Partials {
  RowSum* row_sums;
  float* sums;
  int rows, dim, parts;

  __device__ RowSum& row_sum(int part, int row) const { return row_sums[part * rows + row]; }
  __device__ float& sum(int part, int row, int d) const {
    return sums[(static_cast<int64_t>(part) * rows + row) * dim + d];
  }

  // Adds up the parts, for one dimension of a row.
  __device__ float combine(int row, int d, RowSum& total) const {
    float largest = -kInfinity;
    for (int p = 0; p < parts; p++) largest = fmaxf(largest, row_sum(p, row).x);
    const float shift = largest == -kInfinity ? 0.0f : largest;  // else -inf - -inf
    total = {largest, 0.0f};
    float value = 0.0f;
#pragma unroll 4
    for (int p = 0; p < parts; p++) {
      const RowSum part = row_sum(p, row);
      const float weight = exp2f(part.x - shift);
      total.y += weight * part.y;
      value += weight * sum(p, row, d);
    }
    return value;
  }
};

// How many blocks share a tile at most, from sizes alone: a captured graph keeps it whatever the
// sequences' lengths are. Of these, as many as the tile's pages are worth have work.
struct Split {
  int splits, rows;       // blocks of a tile, and its rows
  int64_t tiles;          // for each KV head
  float* sums = nullptr;  // [tile, KV head, split, row, dim]
  RowSum* row_sums = nullptr;
  int* done = nullptr;  // [tile, KV head], 0 at first

  // Whom a tile's partial results belong to.
  __device__ Partials partials(int64_t unit, int dim, int parts) const {
    const int64_t row = unit * splits * rows;
    return {row_sums + row, sums + row * dim, rows, dim, parts};
  }
};

// The memory of a split, where there is more than one block to a tile.
class SplitMemory {
 public:
  SplitMemory(Split& split, const DeviceCall& call, cudaStream_t stream) {
    if (split.splits == 1) return;
    const int64_t units = split.tiles * call.kv_heads, rows = units * split.splits * split.rows;
    const int64_t row_sums = rows * call.dim * int64_t{sizeof(float)};
    const int64_t done = row_sums + rows * int64_t{sizeof(RowSum)};
    memory_.emplace(done + units * int64_t{sizeof(int)}, stream);
    split.sums = memory_->at<float>(0);
    split.row_sums = memory_->at<RowSum>(row_sums);
    split.done = memory_->at<int>(done);
  }

 private:
  std::optional<Workspace> memory_;
};

// The pages [begin, end) of a tile's that one of `parts` blocks sums; none for the other blocks.
struct Part {
  int begin, end, parts;

  __device__ Part(int pages, int splits, int index, int least_pages) {
    const int each = max((pages + splits - 1) / splits, least_pages);
    parts = (pages + each - 1) / each;
    begin = min(index * each, pages);
    end = min(begin + each, pages);
  }
};

// The most blocks that share a tile: as few as keep nine tenths of the multiprocessors as busy as
// any number would. `pages`: of the longest sequence that there may be.
inline int split_count(int64_t units, int64_t pages, int least_pages, int blocks_at_once) {
  constexpr int64_t kMost = 128;
  const int64_t most = std::min(kMost, divide_up(pages, least_pages));
  const auto busy = [&](int64_t splits) {
    const int64_t blocks = std::max<int64_t>(units, 1) * splits;
    const int64_t rounds = divide_up(blocks, blocks_at_once);
    return static_cast<double>(blocks) / static_cast<double>(rounds * blocks_at_once);
  };
  double best = 0;
  for (int64_t splits = 1; splits <= most; splits++) best = std::max(best, busy(splits));
  int64_t splits = 1;
  while (splits < most && busy(splits) < 0.9 * best) splits++;
  return static_cast<int>(splits);
}

// Writes the block's rows, whose parts (its warps) are `own`: to the output where no other block
// has keys of the tile, else for the block that is done last, which adds all up. All threads of
// the block take part; the parts are visible to them.
__device__ inline void finish_tile(const DeviceCall& call, const RowTile& tile, int64_t kv_head,
                                   const Partials& own, const Split& split, int64_t unit, int index,
                                   int parts) {
  __shared__ bool last;
  const auto write_out = [&](const Partials& from) {
    for (int i = threadIdx.x; i < tile.rows * from.dim; i += blockDim.x) {
      const int row = i / from.dim, d = i % from.dim;
      RowSum total;
      const float value = from.combine(row, d, total);
      tile.out(call, row, kv_head)[d] = value / total.y;
    }
  };
  if (parts == 1) return write_out(own);

  const Partials all = split.partials(unit, own.dim, parts);
  for (int i = threadIdx.x; i < tile.rows * own.dim; i += blockDim.x) {
    const int row = i / own.dim, d = i % own.dim;
    RowSum total;
    all.sum(index, row, d) = own.combine(row, d, total);
    if (d == 0) all.row_sum(index, row) = total;
  }
  __threadfence();
  __syncthreads();
  if (threadIdx.x == 0) last = atomicAdd(&split.done[unit], 1) == parts - 1;
  __syncthreads();
  if (!last) return;
  __threadfence();
  write_out(all);
}

}  // namespace ingot::cuda

// The blocks of a sequence's pages, read 32 at a time: a lane each.
#pragma once

#include "attention_rows.h"

namespace ingot::cuda {

class PageList {
 public:
  // Every `stride`th of the places [begin, end) among the pages that a tile sees.
  __device__ PageList(const DeviceCall& call, int64_t sequence, const SeenPages& pages, int begin,
                      int end, int stride, int lane)
      : pages_(pages),
        table_(call.block_table + sequence * call.pages),
        begin_(begin),
        stride_(stride),
        lane_(lane),
        count_(begin < end ? (end - begin + stride - 1) / stride : 0) {}

  __device__ int count() const { return count_; }
  // The page's number in its sequence.
  __device__ int page(int i) const { return pages_.page(begin_ + i * stride_); }
  // Its block in the cache. To be asked for by whole warps, i in rising order; 32 i's are known at
  // a time.
  __device__ int block(int i) {
    if (i / 32 != known_) {
      known_ = i / 32;
      const int mine = known_ * 32 + lane_;
      if (mine < count_) blocks_ = static_cast<int>(table_[page(mine)]);
    }
    return __shfl_sync(kAllLanes, blocks_, i % 32);
  }

 private:
  const SeenPages& pages_;
  const int64_t* table_;
  int begin_, stride_, lane_, count_;
  int known_ = -1, blocks_ = 0;
};

}  // namespace ingot::cuda

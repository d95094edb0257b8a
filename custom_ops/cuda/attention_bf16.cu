// attention_bf16: see custom_ops/attention_bf16.py. As attention, whose float32 is more exact.
#include "cuda_ops.h"

namespace ingot::cuda {

void attention_bf16(const DLTensor* q, const DLTensor* k, const DLTensor* v,
                    const DLTensor* query_start, double scale, DLTensor* out0,
                    cudaStream_t stream) {
  attention(q, k, v, query_start, scale, out0, stream);
}

}  // namespace ingot::cuda

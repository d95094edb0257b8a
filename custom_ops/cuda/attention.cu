// attention: bidirectional, over a ragged batch; see custom_ops/attention.py. All in float32, as an
// encoder's weights and activations are.
#include "attention_launch.h"
#include "cuda_ops.h"

namespace ingot::cuda {

void attention(const DLTensor* q, const DLTensor* k, const DLTensor* v, const DLTensor* query_start,
               double scale, DLTensor* out0, cudaStream_t stream) {
  AttentionCall checked{};
  static_cast<RaggedCall&>(checked) = check_ragged(q, k, v, query_start);
  if (wants_shape(out0, kFloat32, {checked.tokens, checked.query_heads, checked.dim})) return;
  checked.out = data_of<float>(out0);
  checked.scale = static_cast<float>(scale);
  if (checked.tokens == 0) return;
  const DeviceCall call(checked, false);
  clear_padding(call, stream);
  if (call.sequences > 0) attend_plain(call, stream);
}

}  // namespace ingot::cuda

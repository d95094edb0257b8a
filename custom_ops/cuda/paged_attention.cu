// paged_attention: writes K and V into the cache, then attends; see custom_ops/paged_attention.py.
//
// Which kernels run follows from sizes alone, so that a captured graph may be given other lengths.
#include "attention_launch.h"
#include "attention_types.h"
#include "cuda_ops.h"

namespace ingot::cuda {

bool fits_tensor_cores(const DeviceCall& call) {
  const bool aligned = (reinterpret_cast<uintptr_t>(call.cache) | call.cache_stride) % 16 == 0;
  return aligned && with_tensor_cores(call.kv_type, call.dim, [](auto, auto) {});
}

void paged_attention(const DLTensor* q, const DLTensor* k, const DLTensor* v, DLTensor* kv_cache,
                     const DLTensor* slot_mapping, const DLTensor* query_start,
                     const DLTensor* seq_lens, const DLTensor* block_table,
                     const DLTensor* rotary_cos, const DLTensor* rotary_sin, double scale,
                     const int64_t* window, const double* softcap, int64_t n_sink,
                     const char* kv_dtype, DLTensor* out0, cudaStream_t stream) {
  AttentionCall checked =
      check_attention({q, k, v, kv_cache, slot_mapping, query_start, seq_lens, block_table,
                       rotary_cos, rotary_sin, scale, window, softcap, n_sink, kv_dtype});
  if (wants_shape(out0, kFloat32, {checked.tokens, checked.query_heads, checked.dim})) return;
  checked.out = data_of<float>(out0);
  if (checked.tokens == 0) return;

  const DeviceCall call(checked, true);
  const bool tensor_cores = fits_tensor_cores(call);
  // With more tokens than sequences, some sequence may have many rows. With fewer, one may still
  // have several tokens, but the others then have none: attend_few takes it.
  const bool all_few = call.tokens <= call.sequences;
  Split split = tensor_cores ? split_of_few(call, all_few) : split_of_floats(call);
  const SplitMemory memory(split, call, stream);
  write_tokens(call, split, stream);
  if (call.sequences == 0) return;
  if (!tensor_cores) return attend_floats(call, split, stream);
  attend_few(call, all_few, split, stream);
  if (!all_few) attend_many(call, stream);
}

}  // namespace ingot::cuda

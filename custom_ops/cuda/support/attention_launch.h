// The kernels of attention, from the host. Each call enqueues on the stream.
#pragma once

#include "attention_split.h"

namespace ingot::cuda {

// Whether tensor cores can take the call: K and V of 16 or 8 bits in chunks of 16 bytes, and a
// head_dim that they are compiled for.
bool fits_tensor_cores(const DeviceCall& call);

// Writes K and V into the cache, zeros to the tokens that no sequence has, and to the counters of
// `split`.
void write_tokens(const DeviceCall& call, const Split& split, cudaStream_t stream);
// Only the zeros of tokens, for a call without a cache.
void clear_padding(const DeviceCall& call, cudaStream_t stream);

// On tensor cores: attend_few takes all sequences, or those of up to kFewRows rows for each KV
// head, and attend_many the others.
constexpr int kFewRows = 16;
Split split_of_few(const DeviceCall& call, bool all);
void attend_few(const DeviceCall& call, bool all, const Split& split, cudaStream_t stream);
void attend_many(const DeviceCall& call, cudaStream_t stream);

// In float32: a call with a cache, and one without.
Split split_of_floats(const DeviceCall& call);
void attend_floats(const DeviceCall& call, const Split& split, cudaStream_t stream);
void attend_plain(const DeviceCall& call, cudaStream_t stream);

}  // namespace ingot::cuda

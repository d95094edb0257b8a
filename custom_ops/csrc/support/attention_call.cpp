#include "attention_call.h"

#include <climits>
#include <cstring>

namespace ingot {
namespace {

long long ll(int64_t value) { return value; }

Heads heads(const DLTensor* tensor, const char* name, int64_t tokens, int64_t count, int64_t dim) {
  expect(tensor, name, kFloat32, {tokens, count, dim});
  expect_contiguous(tensor, name, 1);
  return {data_of<const float>(tensor), tensor->strides[0], tensor->strides[1]};
}

const int64_t* integers(const DLTensor* tensor, const char* name,
                        std::initializer_list<int64_t> shape) {
  expect(tensor, name, kInt64, shape);
  expect_contiguous(tensor, name, tensor->ndim);
  return data_of<const int64_t>(tensor);
}

KvType kv_type_of(const char* name) {
  if (strcmp(name, "float32") == 0) return KvType::float32;
  if (strcmp(name, "bfloat16") == 0) return KvType::bfloat16;
  if (strcmp(name, "float16") == 0) return KvType::float16;
  if (strcmp(name, "int8") == 0) return KvType::int8;
  fail("kv_dtype is \"%s\"; write float32, bfloat16, float16 or int8", name);
}

void check_heads(const RaggedCall& call) {
  if (call.dim < 1 || call.dim > kMaxHeadDim) {
    fail("head_dim is %lld; 1 to %lld work", ll(call.dim), ll(kMaxHeadDim));
  }
  if (call.kv_heads < 1 || call.query_heads % call.kv_heads != 0) {
    fail("%lld query heads are not a multiple of %lld KV heads", ll(call.query_heads),
         ll(call.kv_heads));
  }
}

Rotary rotary(const DLTensor* cos, const DLTensor* sin, int64_t tokens, int64_t dim) {
  if ((cos == nullptr) != (sin == nullptr)) fail("rotary_cos and rotary_sin come together");
  if (cos == nullptr) return {};
  expect(cos, "rotary_cos", kFloat32, {tokens, -1});
  const int64_t pairs = cos->shape[1];
  expect(sin, "rotary_sin", kFloat32, {tokens, pairs});
  expect_contiguous(cos, "rotary_cos", 1);
  expect_contiguous(sin, "rotary_sin", 1);
  if (2 * pairs > dim)
    fail("rotary_cos turns %lld pairs, head_dim %lld has %lld", ll(pairs), ll(dim), ll(dim / 2));
  return {data_of<const float>(cos), data_of<const float>(sin), cos->strides[0], sin->strides[0],
          pairs};
}

int64_t item_bytes(KvType type) {
  switch (type) {
    case KvType::float32:
      return 4;
    case KvType::bfloat16:
    case KvType::float16:
      return 2;
    case KvType::int8:
      return 1;
  }
  __builtin_unreachable();
}

void set_cache(AttentionCall& call, const DLTensor* cache) {
  const int64_t bytes = item_bytes(call.kv_type);
  call.head_bytes = 2 * part_bytes(bytes, call.dim);
  expect(cache, "kv_cache", kUint8, {-1, call.kv_heads * call.head_bytes});
  expect_contiguous(cache, "kv_cache", 1);
  call.cache = data_of<char>(cache);
  call.cache_stride = cache->strides[0];
  const int64_t aligned = bytes == 1 ? 4 : bytes;  // the codes' scales are float32
  if ((reinterpret_cast<uintptr_t>(call.cache) | call.cache_stride) % aligned != 0) {
    fail("kv_cache's blocks must be aligned to %lld bytes", ll(aligned));
  }
}

void check_slots(const AttentionCall& call, int64_t blocks) {
  for (int64_t t = 0; t < call.tokens; t++) {
    const int64_t slot = call.slot_mapping[t];
    if (slot < -1 || slot >= blocks * kBlock) {
      fail("slot_mapping[%lld] is %lld, outside [-1, %lld)", ll(t), ll(slot), ll(blocks * kBlock));
    }
  }
}

void check_starts(const RaggedCall& call) {
  if (call.query_start[0] != 0) fail("query_start[0] is %lld, not 0", ll(call.query_start[0]));
  for (int64_t b = 0; b < call.sequences; b++) {
    const int64_t begin = call.query_start[b], end = call.query_start[b + 1];
    if (begin > end || end > call.tokens) {
      fail("query_start[%lld .. %lld] is %lld .. %lld, but must rise within [0, %lld]", ll(b),
           ll(b + 1), ll(begin), ll(end), ll(call.tokens));
    }
  }
}

void check_sequence(const AttentionCall& call, int64_t b, int64_t blocks) {
  const int64_t begin = call.query_start[b], end = call.query_start[b + 1];
  const int64_t length = call.seq_lens[b];
  if (length == 0 || begin == end) return;
  if (length < end - begin || length > call.pages * kBlock) {
    fail("seq_lens[%lld] is %lld, but has %lld new tokens and room for %lld in its block_table",
         ll(b), ll(length), ll(end - begin), ll(call.pages * kBlock));
  }
  const int64_t first = call.first_seen(length - (end - begin));
  for (int64_t page = 0; page * kBlock < length; page++) {
    if ((page + 1) * kBlock <= first && page * kBlock >= call.n_sink) continue;  // not seen
    const int64_t block = call.block_table[b * call.pages + page];
    if (block < 0 || block >= blocks) {
      fail("block_table[%lld, %lld] is %lld, outside [0, %lld)", ll(b), ll(page), ll(block),
           ll(blocks));
    }
  }
}

}  // namespace

void Rotary::turn(const float* __restrict from, int64_t dim, int64_t token,
                  float* __restrict to) const {
  const float *c = cos + token * cos_stride, *s = sin + token * sin_stride;
  for (int64_t i = 0; i < pairs; i++) {
    to[i] = from[i] * c[i] - from[i + pairs] * s[i];
    to[i + pairs] = from[i + pairs] * c[i] + from[i] * s[i];
  }
  for (int64_t d = 2 * pairs; d < dim; d++) to[d] = from[d];
}

RaggedCall check_ragged(const DLTensor* q, const DLTensor* k, const DLTensor* v,
                        const DLTensor* query_start) {
  RaggedCall call{};
  expect(q, "q", kFloat32, {-1, -1, -1});
  expect(k, "k", kFloat32, {-1, -1, -1});
  call.tokens = q->shape[0];
  call.query_heads = q->shape[1];
  call.kv_heads = k->shape[1];
  call.dim = q->shape[2];
  check_heads(call);
  call.q = heads(q, "q", call.tokens, call.query_heads, call.dim);
  call.k = heads(k, "k", call.tokens, call.kv_heads, call.dim);
  call.v = heads(v, "v", call.tokens, call.kv_heads, call.dim);
  expect(query_start, "query_start", kInt64, {-1});
  call.sequences = query_start->shape[0] - 1;
  if (call.sequences < 0) fail("query_start is empty; it begins with 0");
  call.query_start = integers(query_start, "query_start", {call.sequences + 1});
  if constexpr (kSeesValues) check_starts(call);
  return call;
}

AttentionCall check_attention(const AttentionArguments& a) {
  AttentionCall call{};
  static_cast<RaggedCall&>(call) = check_ragged(a.q, a.k, a.v, a.query_start);
  call.rotary = rotary(a.rotary_cos, a.rotary_sin, call.tokens, call.dim);
  call.kv_type = kv_type_of(a.kv_dtype);
  set_cache(call, a.kv_cache);
  call.scale = static_cast<float>(a.scale);
  call.window = a.window != nullptr ? *a.window : INT64_MAX;
  if (call.window < 1) fail("window is %lld; it must be at least 1", ll(call.window));
  call.n_sink = a.n_sink;
  if (call.n_sink < 0) fail("n_sink is %lld; it must not be negative", ll(call.n_sink));
  call.softcap = a.softcap != nullptr ? static_cast<float>(*a.softcap) : 0.0f;
  if (a.softcap != nullptr && !(call.softcap > 0))
    fail("softcap is %g; it must be above 0", *a.softcap);

  expect(a.block_table, "block_table", kInt64, {-1, -1});
  call.pages = a.block_table->shape[1];
  call.slot_mapping = integers(a.slot_mapping, "slot_mapping", {call.tokens});
  call.seq_lens = integers(a.seq_lens, "seq_lens", {call.sequences});
  call.block_table = integers(a.block_table, "block_table", {call.sequences, call.pages});
  if constexpr (kSeesValues) {
    const int64_t blocks = a.kv_cache->shape[0];
    check_slots(call, blocks);
    for (int64_t b = 0; b < call.sequences; b++) check_sequence(call, b, blocks);
  }
  return call;
}

}  // namespace ingot

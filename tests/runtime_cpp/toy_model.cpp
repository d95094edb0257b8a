// A model with the entry points of AOTInductor's output
// (torch/csrc/inductor/aoti_runtime/interface.h). It keeps tokens in the KV cache, answers by
// toy_rule.h, and refuses any step whose inputs contradict each other.
#include <chrono>
#include <cmath>
#include <cstring>
#include <set>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

#include "toy_rule.h"

struct AtenTensorOpaque;
using Handle = AtenTensorOpaque*;
using namespace ingot::test;

extern "C" {
int32_t aoti_torch_cpu_embedding(Handle tokens, Handle weight, int64_t embedding_dim,
                                 Handle* result);
int32_t aoti_torch_create_tensor_from_blob(void* data, int64_t dim, const int64_t* sizes,
                                           const int64_t* strides, int64_t offset, int32_t dtype,
                                           int32_t device, int32_t index, Handle* result);
int32_t aoti_torch_delete_tensor_object(Handle tensor);
int32_t aoti_torch_empty_strided(int64_t dim, const int64_t* sizes, const int64_t* strides,
                                 int32_t dtype, int32_t device, int32_t index, Handle* result);
int32_t aoti_torch_get_data_ptr(Handle tensor, void** data);
int32_t aoti_torch_get_dim(Handle tensor, int64_t* dim);
int32_t aoti_torch_get_dtype(Handle tensor, int32_t* dtype);
int32_t aoti_torch_get_sizes(Handle tensor, int64_t** sizes);
int32_t aoti_record_function_start(const char* name, void* kwargs, const void* inputs,
                                   uint64_t count, void** guard);
int32_t aoti_record_function_end(void* guard);
}

#define ENTRY extern "C" __attribute__((visibility("default"))) int32_t

namespace {

constexpr int32_t kUint8 = 0, kInt64 = 4, kFloat32 = 6;
constexpr size_t kInputs = 8 + kLayers;
thread_local std::string g_error;

struct Container {
  Handle salt = nullptr;
};

void require(bool condition, const std::string& what) {
  if (!condition) throw std::runtime_error("toy model: " + what);
}

// An input of this rank and dtype, deleted as generated code deletes what it is given.
struct Input {
  Input(Handle owned, int32_t dtype, int64_t rank, const char* name) : handle(owned) {
    int32_t actual = -1;
    int64_t dim = 0;
    void* memory = nullptr;
    aoti_torch_get_dtype(handle, &actual);
    aoti_torch_get_dim(handle, &dim);
    aoti_torch_get_sizes(handle, &sizes);
    aoti_torch_get_data_ptr(handle, &memory);
    data = static_cast<int64_t*>(memory);
    require(actual == dtype && dim == rank, std::string(name) + " has another dtype or rank");
  }
  Input(const Input&) = delete;
  ~Input() { aoti_torch_delete_tensor_object(handle); }

  Handle handle;
  int64_t* sizes = nullptr;
  int64_t* data = nullptr;
};

struct Step {
  explicit Step(Handle* h)
      : tokens(h[0], kInt64, 1, "tokens"),
        positions(h[1], kInt64, 1, "positions"),
        slots(h[2], kInt64, 1, "slot_mapping"),
        query_start(h[3], kInt64, 1, "query_start"),
        seq_lens(h[4], kInt64, 1, "seq_lens"),
        context_lens(h[5], kInt64, 1, "context_lens"),
        block_table(h[6], kInt64, 2, "block_table"),
        rows(h[7], kInt64, 1, "logit_rows"),
        first_cache(h[8], kUint8, 2, "kv_cache.0"),
        last_cache(h[9], kUint8, 2, "kv_cache.1") {}

  Input tokens, positions, slots, query_start, seq_lens, context_lens, block_table, rows,
      first_cache, last_cache;

  int64_t sequence_of(int64_t token) const {
    int64_t b = 0;
    while (query_start.data[b + 1] <= token) b++;
    return b;
  }
  int64_t slot(int64_t sequence, int64_t position) const {
    const int64_t column = position / kBlockSize;
    require(column < block_table.sizes[1], "a block table is too narrow");
    const int64_t block = block_table.data[sequence * block_table.sizes[1] + column];
    require(block >= 0 && block < last_cache.sizes[0], "a block does not exist");
    return block * kBlockSize + position % kBlockSize;
  }
};

void check(const Step& step) {
  const int64_t total = step.tokens.sizes[0], sequences = step.seq_lens.sizes[0];
  require(total >= 1 && sequences >= 1 && step.rows.sizes[0] >= 1, "an empty step");
  require(step.positions.sizes[0] == total && step.slots.sizes[0] == total, "T differs");
  require(step.query_start.sizes[0] == sequences + 1 && step.block_table.sizes[0] == sequences,
          "B differs");
  require(step.query_start.data[0] == 0 && step.query_start.data[sequences] == total,
          "query_start does not cover the tokens");
  require(step.last_cache.sizes[1] == kBytesPerBlock, "kv_cache has another block size");
  std::set<int64_t> written;
  for (int64_t b = 0; b < sequences; b++) {
    const int64_t begin = step.query_start.data[b], end = step.query_start.data[b + 1];
    require(begin < end, "a sequence without tokens");
    require(step.context_lens.data[b] >= step.seq_lens.data[b], "a context ends too soon");
    for (int64_t i = begin; i < end; i++) {
      const int64_t position = step.seq_lens.data[b] - (end - i);
      require(step.positions.data[i] == position, "a position is wrong");
      require(step.slots.data[i] == step.slot(b, position), "a slot is not its position's");
      require(written.insert(step.slots.data[i]).second, "a slot is written twice");
      require(step.tokens.data[i] >= 0 && step.tokens.data[i] < kVocab, "a token is out of range");
      require(step.tokens.data[i] != kFailingToken, "this token always fails");
    }
  }
  for (int64_t r = 0; r < step.rows.sizes[0]; r++) {
    require(step.rows.data[r] >= 0 && step.rows.data[r] < total, "a logit row does not exist");
  }
}

// A call of one of our ops, whose result nobody needs.
void call_op(const Step& step) {
  alignas(64) static float table[64] = {0.5f, NAN};
  const bool alone = step.tokens.sizes[0] == 1 && step.positions.data[0] == 0;
  const int64_t prompt = alone ? step.tokens.data[0] : -1;
  const int64_t sizes[] = {1, 1, 64}, strides[] = {64, 64, 1}, one[] = {1};
  int64_t token = prompt == kNanToken ? 1 : 0;
  Handle tokens = nullptr, weight = nullptr, found = nullptr;
  aoti_torch_create_tensor_from_blob(&token, 1, one, one, 0, kInt64, 0, 0, &tokens);
  aoti_torch_create_tensor_from_blob(table, 3, sizes, strides, 0, kFloat32, 0, 0, &weight);
  void* guard = nullptr;
  aoti_record_function_start("aoti_torch_cpu_embedding", nullptr, nullptr, 0, &guard);
  const int32_t failed = aoti_torch_cpu_embedding(tokens, weight, 1, &found);
  if (guard) aoti_record_function_end(guard);
  aoti_torch_delete_tensor_object(tokens);
  aoti_torch_delete_tensor_object(weight);
  require(failed == 0, "the op failed");
  if (prompt != kLeakingToken) {
    aoti_torch_delete_tensor_object(found);
    return;
  }
  static auto* const forgotten = new std::vector<Handle>;  // known, so that LeakSanitizer is not
  forgotten->push_back(found);                             // the one who tells
}

Handle compute(const Step& step, float salt) {
  for (int64_t i = 0; i < step.tokens.sizes[0]; i++) {
    step.first_cache.data[step.slots.data[i]] = step.tokens.data[i];
    step.last_cache.data[step.slots.data[i]] = step.tokens.data[i];
  }
  const int64_t sizes[] = {step.rows.sizes[0], kVocab}, strides[] = {kVocab, 1};
  Handle output = nullptr;
  require(aoti_torch_empty_strided(2, sizes, strides, kFloat32, 0, 0, &output) == 0, "no memory");
  void* memory = nullptr;
  aoti_torch_get_data_ptr(output, &memory);
  auto* logits = static_cast<float*>(memory);
  for (int64_t r = 0; r < sizes[0]; r++) {
    const int64_t token = step.rows.data[r], sequence = step.sequence_of(token);
    std::vector<int64_t> history;
    for (int64_t p = 0; p <= step.positions.data[token]; p++) {
      history.push_back(step.last_cache.data[step.slot(sequence, p)]);
    }
    const uint64_t state = hash(history);
    for (int64_t v = 0; v < kVocab; v++) logits[r * kVocab + v] = logit(state, v) - kSalt + salt;
  }
  return output;
}

template <typename Body>
int32_t guarded(Body body) {
  try {
    body();
    g_error.clear();
    return 0;
  } catch (const std::exception& error) {
    g_error = error.what();
    return 1;
  }
}

}  // namespace

ENTRY AOTInductorModelContainerCreateWithDevice(void** container, size_t, const char*,
                                                const char*) {
  *container = new Container;
  return 0;
}

ENTRY AOTInductorModelContainerDelete(void* container) {
  delete static_cast<Container*>(container);
  return 0;
}

ENTRY AOTInductorModelContainerGetNumInputs(void*, size_t* count) {
  *count = kInputs;
  return 0;
}

ENTRY AOTInductorModelContainerGetNumOutputs(void*, size_t* count) {
  *count = 1;
  return 0;
}

ENTRY AOTInductorModelContainerGetNumConstants(void*, size_t* count) {
  *count = 1;
  return 0;
}

ENTRY AOTInductorModelContainerGetConstantName(void*, size_t, const char** name) {
  *name = "L__self___salt";
  return 0;
}

ENTRY AOTInductorModelContainerGetConstantOriginalFQN(void*, size_t, const char** name) {
  *name = "toy.salt";
  return 0;
}

ENTRY AOTInductorModelContainerGetConstantDtype(void*, size_t, int32_t* dtype) {
  *dtype = kFloat32;
  return 0;
}

ENTRY AOTInductorModelContainerGetConstantDataSize(void*, size_t, size_t* bytes) {
  *bytes = sizeof(float);
  return 0;
}

struct Pair {
  const char* name;
  Handle tensor;
};

ENTRY AOTInductorModelContainerUpdateUserManagedConstantBufferPairs(void* container,
                                                                    const Pair* pairs, size_t count,
                                                                    bool, bool) {
  return guarded([&] {
    require(count == 1 && std::strcmp(pairs[0].name, "L__self___salt") == 0, "other constants");
    static_cast<Container*>(container)->salt = pairs[0].tensor;
  });
}

ENTRY AOTInductorModelContainerRunSingleThreaded(void* container, Handle* inputs, size_t count,
                                                 Handle* outputs, size_t, void*, void*) {
  return guarded([&] {
    require(count == kInputs, "another number of inputs");
    const Step step(inputs);
    check(step);
    call_op(step);
    void* guard = nullptr;
    aoti_record_function_start("toy_kernel", nullptr, nullptr, 0, &guard);
    void* salt = nullptr;
    aoti_torch_get_data_ptr(static_cast<Container*>(container)->salt, &salt);
    // About as long as a small model's step: concurrent calls meet in one.
    std::this_thread::sleep_for(std::chrono::microseconds(200));
    outputs[0] = compute(step, *static_cast<const float*>(salt));
    aoti_record_function_end(guard);
  });
}

ENTRY AOTInductorGetLastError(const char** message) {
  *message = g_error.c_str();
  return 0;
}

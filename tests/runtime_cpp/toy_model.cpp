// A model with the entry points of AOTInductor's output
// (torch/csrc/inductor/aoti_runtime/interface.h).
#include "toy_model.h"

#include <cstring>
#include <memory>

using namespace ingot::test;

#define ENTRY extern "C" __attribute__((visibility("default"))) int32_t

namespace {

constexpr size_t kInputs = 8 + kLayers;
thread_local std::string g_error;

struct Container {
  Handle salt = nullptr;
};

Ints read(const Ended& input, int32_t dtype, int64_t rank, const char* name) {
  int32_t actual = -1, device = -1;
  int64_t dim = 0, *sizes = nullptr;
  aoti_torch_get_dtype(input.handle, &actual);
  aoti_torch_get_dim(input.handle, &dim);
  aoti_torch_get_sizes(input.handle, &sizes);
  aoti_torch_get_device_type(input.handle, &device);
  require(actual == dtype && dim == rank, std::string(name) + " has another dtype or rank");
  require(device == kDeviceType, std::string(name) + " is on another device");
  return {static_cast<int64_t*>(input.data()), {sizes[0], rank > 1 ? sizes[1] : 0}};
}

StepArrays read_all(const std::vector<std::unique_ptr<Ended>>& given) {
  const char* names[] = {"tokens",     "positions",    "slot_mapping", "query_start",
                         "seq_lens",   "context_lens", "block_table",  "logit_rows",
                         "kv_cache.0", "kv_cache.1"};
  StepArrays step;
  Ints* const fields[] = {
      &step.tokens,       &step.positions,   &step.slots, &step.query_start, &step.seq_lens,
      &step.context_lens, &step.block_table, &step.rows,  &step.first_cache, &step.last_cache};
  for (size_t i = 0; i < kInputs; i++)
    *fields[i] = read(*given[i], i < 8 ? kInt64 : kUint8, i == 6 || i >= 8 ? 2 : 1, names[i]);
  return step;
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
  end_steps();
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
                                                 Handle* outputs, size_t, void* stream, void*) {
  std::vector<std::unique_ptr<Ended>> given;  // ended whatever happens
  for (size_t i = 0; i < count; i++) given.push_back(std::make_unique<Ended>(inputs[i]));
  return guarded([&] {
    require(count == kInputs, "another number of inputs");
    const StepArrays step = read_all(given);
    check_sizes(step);
    outputs[0] = run_step(step, static_cast<Container*>(container)->salt, stream);
  });
}

ENTRY AOTInductorGetLastError(const char** message) {
  *message = g_error.c_str();
  return 0;
}

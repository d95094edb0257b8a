// The toy model's step on a GPU: two kernels and memory between them, launched as generated code
// launches its own, through libingot_cuda. They run in the fake driver (tests/cuda/fake_driver.h).
#include <cstdio>
#include <utility>

#include "fake_driver.h"
#include "toy_model.h"

extern "C" {
int32_t aoti_torch_create_cuda_stream_guard(void* stream, int32_t device, void** guard);
int32_t aoti_torch_delete_cuda_stream_guard(void* guard);
int32_t aoti_torch_get_current_cuda_stream(int32_t device, void** stream);
int32_t ingot_cuModuleLoadData(void** module, const void* image);
int32_t ingot_cuModuleUnload(void* module);
int32_t ingot_cuModuleGetFunction(void** function, void* module, const char* name);
int32_t ingot_cuLaunchKernel(void* function, unsigned grid_x, unsigned grid_y, unsigned grid_z,
                             unsigned block_x, unsigned block_y, unsigned block_z,
                             unsigned shared_bytes, void* stream, void** arguments, void** extra);
}

namespace ingot::test {
namespace {

constexpr int32_t kCuda = 1;

template <typename Body>
int32_t reported(Body body) {
  try {
    body();
    return 0;
  } catch (const std::exception& error) {
    std::fprintf(stderr, "%s\n", error.what());
    return 1;
  }
}

// (StepArrays step, const float* salt, float* kept)
int32_t write_kernel(void** arguments) {
  const auto& step = *static_cast<const StepArrays*>(arguments[0]);
  return reported([&] {
    check_values(step, true);
    write_cache(step);
    **static_cast<float**>(arguments[2]) = **static_cast<const float**>(arguments[1]);
  });
}

// (StepArrays step, const float* kept, float* logits)
int32_t logits_kernel(void** arguments) {
  const auto& step = *static_cast<const StepArrays*>(arguments[0]);
  return reported([&] {
    compute_logits(step, **static_cast<const float**>(arguments[1]),
                   *static_cast<float**>(arguments[2]));
  });
}

const fake_cuda::Kernel kKernels[] = {
    {"toy_write", write_kernel, {sizeof(StepArrays), sizeof(void*), sizeof(void*)}},
    {"toy_logits", logits_kernel, {sizeof(StepArrays), sizeof(void*), sizeof(void*)}}};
const fake_cuda::Image kImage = {kKernels, 2};
// Loaded with the first step, as generated code does it: that of the model, and that of a function
// which is there once for all models and for good.
void *of_model = nullptr, *of_function = nullptr;

void launch(void*& module, const char* name, void* stream, void** arguments) {
  void* guard = nullptr;
  void* function = nullptr;
  if (!module) require(ingot_cuModuleLoadData(&module, &kImage) == 0, "no module");
  require(ingot_cuModuleGetFunction(&function, module, name) == 0, "no kernel");
  aoti_record_function_start(name, nullptr, nullptr, 0, &guard);
  const int32_t failed =
      ingot_cuLaunchKernel(function, 1, 1, 1, 32, 1, 1, 0, stream, arguments, nullptr);
  aoti_record_function_end(guard);
  require(failed == 0, "a launch failed");
}

Handle empty(int64_t rows, int64_t columns) {
  const int64_t sizes[] = {rows, columns}, strides[] = {columns, 1};
  Handle made = nullptr;
  require(aoti_torch_empty_strided(2, sizes, strides, kFloat32, kCuda, 0, &made) == 0, "no memory");
  return made;
}

}  // namespace

const int32_t kDeviceType = kCuda;

Handle run_step(const StepArrays& inputs, Handle salt_tensor, void* stream) {
  void *guard = nullptr, *found = nullptr;
  require(aoti_torch_create_cuda_stream_guard(stream, 0, &guard) == 0, "no stream guard");
  require(aoti_torch_get_current_cuda_stream(0, &found) == 0 && found == stream, "another stream");
  StepArrays step = inputs;
  void* salt = nullptr;
  aoti_torch_get_data_ptr(salt_tensor, &salt);
  const Ended kept(empty(inputs.tokens.sizes[0], 1000));
  void* memory = kept.data();
  void* writing[] = {&step, &salt, &memory};
  launch(of_model, "toy_write", stream, writing);
  Ended output(empty(inputs.rows.sizes[0], kVocab));
  void* logits = output.data();
  void* reading[] = {&step, &memory, &logits};
  launch(of_function, "toy_logits", stream, reading);
  aoti_torch_delete_cuda_stream_guard(guard);
  return std::exchange(output.handle, nullptr);
}

void end_steps() {
  if (of_model) ingot_cuModuleUnload(of_model);
  of_model = nullptr;
}

}  // namespace ingot::test

// The C shim of mine::squared_relu: what generated code calls. Its signature follows from the op's
// schema, as ingot.export says if it is missing; 0 is success.
#include <torch/csrc/inductor/aoti_torch/c/shim.h>

#include <cstdint>

extern "C" __attribute__((visibility("default"))) AOTITorchError
aoti_torch_cpu_squared_relu(AtenTensorHandle x, double slope, AtenTensorHandle* out) {
  int64_t dim = 0, count = 0, *sizes = nullptr, *strides = nullptr;
  void *from = nullptr, *to = nullptr;
  if (aoti_torch_get_dim(x, &dim) || aoti_torch_get_sizes(x, &sizes) ||
      aoti_torch_get_strides(x, &strides) || aoti_torch_get_numel(x, &count) ||
      aoti_torch_get_data_ptr(x, &from))
    return AOTI_TORCH_FAILURE;
  int64_t step = 1;
  for (int64_t d = dim; d-- > 0; step *= sizes[d])
    if (sizes[d] != 1 && strides[d] != step) return AOTI_TORCH_FAILURE;  // not contiguous
  if (aoti_torch_empty_strided(dim, sizes, strides, aoti_torch_dtype_float32(),
                               aoti_torch_device_type_cpu(), 0, out) ||
      aoti_torch_get_data_ptr(*out, &to))
    return AOTI_TORCH_FAILURE;
  const float* values = static_cast<const float*>(from);
  float* results = static_cast<float*>(to);
  for (int64_t i = 0; i < count; i++)
    results[i] = values[i] > 0 ? values[i] * values[i] : static_cast<float>(slope) * values[i];
  return AOTI_TORCH_SUCCESS;
}

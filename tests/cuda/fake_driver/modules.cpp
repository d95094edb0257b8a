// Modules, their functions, launches.
#include <cstring>

#include "state.h"

namespace {
using namespace fake_cuda;

bool is_function(const Function* function) {
  for (const auto& [module, owned] : gpu().modules)
    if (!module->empty() && function >= module->data() &&
        function < module->data() + module->size())
      return true;
  return false;
}

// What a block may have at most (CUDA C++ Programming Guide, "Compute Capabilities").
int64_t most_shared_bytes() {
  const int32_t capability = gpu().settings.capability;
  return int64_t{capability >= 90 ? 227 : capability == 80 ? 163 : 99} << 10;
}

Status check_launch(const Function& function, const std::vector<uint32_t>& grid,
                    const std::vector<uint32_t>& block, uint32_t shared_bytes) {
  constexpr uint32_t kMostBlocks = 65535;  // along y and z
  const uint64_t threads = uint64_t{block[0]} * block[1] * block[2];
  if (grid[0] == 0 || grid[0] > INT32_MAX || grid[1] == 0 || grid[1] > kMostBlocks ||
      grid[2] == 0 || grid[2] > kMostBlocks || threads == 0 || threads > 1024)
    return kInvalidValue;
  const MachineCode& code = function.code;
  if (code.threads && code.threads != threads) return kInvalidValue;
  if (shared_bytes > static_cast<uint32_t>(function.dynamic_bytes) ||
      int64_t{code.shared_bytes} + shared_bytes > most_shared_bytes())
    return kInvalidValue;
  // Registers are given to warps in units of 256.
  const uint64_t of_warp = (uint64_t{code.registers} * 32 + 255) / 256 * 256;
  return (threads + 31) / 32 * of_warp > 65536 ? kOutOfResources : kSuccess;
}

std::vector<Parameter> parameters_of(const Function& function) {
  if (!function.kernel) return function.code.parameters;
  std::vector<Parameter> found;  // of pointers within structures nothing is known
  for (const size_t bytes : function.kernel->argument_bytes)
    if (bytes) found.push_back({bytes, false});
  return found;
}

// Whether a kernel's argument is an address on the GPU, or null: some are never followed.
bool is_global(const std::vector<char>& value) {
  Address address = 0;
  std::memcpy(&address, value.data(), sizeof address);
  return address == 0 || is_allocated(address, 1);
}

int32_t compute(const Function& function, const std::vector<uint32_t>& grid,
                std::vector<void*>& arguments) {
  if (function.kernel) return function.kernel->run(arguments.data());
  if (!gpu().compute) return 0;
  return gpu().compute(function.code.name.c_str(), grid.data(), arguments.data(), arguments.size());
}
}  // namespace

API Status cuModuleLoadData(Module** module, const void* image) {
  return call(Needs::context, [&]() -> Status {
    if (spoils_capture()) return kCaptureUnsupported;
    if (!image) return kInvalidImage;
    auto made = std::make_unique<Module>();
    if (is_cubin(image)) {
      const Cubin cubin = read_cubin(image);
      const int32_t here = gpu().settings.capability;
      if (cubin.capability / 10 != here / 10 || cubin.capability > here) return kNoBinary;
      for (const MachineCode& code : cubin.kernels) made->push_back({nullptr, code});
    } else {
      const auto* kernels = static_cast<const Image*>(image);
      for (size_t i = 0; i < kernels->count; i++) made->push_back({&kernels->kernels[i], {}});
    }
    *module = made.get();
    gpu().modules[made.get()] = std::move(made);
    gpu().counts.modules++;
    return kSuccess;
  });
}
API Status cuModuleUnload(Module* module) {
  return call(Needs::context, [&]() -> Status {
    run_all();
    if (gpu().modules.erase(module) == 0) return kInvalidHandle;
    return gpu().counts.modules--, kSuccess;
  });
}
API Status cuModuleGetFunction(Function** function, Module* module, const char* name) {
  return call(Needs::context, [&]() -> Status {
    if (gpu().modules.count(module) == 0) return kInvalidHandle;
    for (Function& found : *module)
      if (name == (found.kernel ? found.kernel->name : found.code.name))
        return *function = &found, kSuccess;
    return kNotFound;
  });
}
API Status cuFuncSetAttribute(Function* function, int32_t attribute, int32_t value) {
  return call(Needs::context, [&]() -> Status {
    if (!is_function(function)) return kInvalidHandle;
    constexpr int32_t kDynamicBytes = 8;
    if (attribute != kDynamicBytes) return kInvalidValue;
    const auto all = static_cast<int64_t>(function->code.shared_bytes) + value;
    if (value < 0 || all > most_shared_bytes()) return kInvalidValue;
    return function->dynamic_bytes = value, kSuccess;
  });
}
API Status cuLaunchKernel(Function* function, uint32_t grid_x, uint32_t grid_y, uint32_t grid_z,
                          uint32_t block_x, uint32_t block_y, uint32_t block_z,
                          uint32_t shared_bytes, Stream* stream, void** arguments, void** extra) {
  return call(Needs::context, [&]() -> Status {
    if (!is_function(function) || gpu().streams.count(stream) == 0) return kInvalidHandle;
    if (fails(gpu().settings.failing_launch)) return kOutOfMemory;
    const std::vector<uint32_t> grid = {grid_x, grid_y, grid_z};
    const Status status = check_launch(*function, grid, {block_x, block_y, block_z}, shared_bytes);
    if (status != kSuccess || extra) return status != kSuccess ? status : kInvalidValue;
    // Arguments are read before the call returns.
    const std::vector<Parameter> parameters = parameters_of(*function);
    std::vector<std::vector<char>> values;
    for (const Parameter& parameter : parameters) {
      const auto* at = static_cast<const char*>(arguments[values.size()]);
      if (!at) return kInvalidValue;
      values.emplace_back(at, at + parameter.bytes);
      if (parameter.is_pointer && !is_global(values.back())) return kIllegalAddress;
    }
    enqueue(*stream, [function, grid, values, parameters]() mutable -> Status {
      if (!is_function(function)) return kIllegalAddress;  // gone since a graph was captured
      for (size_t i = 0; i < values.size(); i++)
        if (parameters[i].is_pointer && !is_global(values[i])) return kIllegalAddress;
      std::vector<void*> pointers;
      for (std::vector<char>& value : values) pointers.push_back(value.data());
      return compute(*function, grid, pointers) == 0 ? kSuccess : kLaunchFailed;
    });
    gpu().counts.kernel_launches++;
    return kSuccess;
  });
}

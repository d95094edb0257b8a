#include "graph.h"

#include <dlfcn.h>

#include <algorithm>
#include <cstring>

#include "error.h"
#include "host.h"
#include "trace.h"

namespace ingot {
namespace {
// Whether every element that shape and stride reach lies inside the constant's bytes. Of an empty
// one too, the sizes must have a product and a reach, which others compute without asking.
bool fits(const Constant& c) {
  const auto elements = static_cast<int64_t>(c.bytes / element_bytes(c.scalar_type));
  int64_t last = 0, count = 1;
  bool empty = false;
  for (size_t d = 0; d < c.shape.size(); d++) {
    const int64_t size = std::max<int64_t>(c.shape[d], 1), stride = c.stride[d];
    int64_t reach = 0;
    if (c.shape[d] < 0 || stride < 0 || __builtin_mul_overflow(count, size, &count) ||
        __builtin_mul_overflow(size - 1, stride, &reach) ||
        __builtin_add_overflow(last, reach, &last) || last > INT64_MAX / 8)
      return false;
    empty |= c.shape[d] == 0;
  }
  return empty || last < elements;
}

// Generated code states its constants' sizes rounded up to 64 bytes.
constexpr size_t kPadding = 63;
}  // namespace

std::vector<int64_t> row_major(const std::vector<int64_t>& shape) {
  std::vector<int64_t> strides(shape.size());
  int64_t step = 1;
  for (size_t d = shape.size(); d-- > 0; step *= shape[d]) strides[d] = step;
  return strides;
}

std::vector<char> contiguous(const Array& array, const std::vector<int64_t>& strides) {
  const size_t bytes = element_bytes(array.scalar_type);
  int64_t count = 1;
  for (int64_t size : array.shape) count *= size;
  std::vector<char> copy(static_cast<size_t>(count) * bytes);
  for (int64_t i = 0; i < count; i++) {
    int64_t rest = i, offset = 0;
    for (size_t d = array.shape.size(); d-- > 0; rest /= array.shape[d])
      offset += rest % array.shape[d] * strides[d];
    std::memcpy(copy.data() + static_cast<size_t>(i) * bytes,
                static_cast<const char*>(array.data) + offset * static_cast<int64_t>(bytes), bytes);
  }
  return copy;
}

Made describe(void* tensor) {
  int64_t dim = 0;
  const int64_t *sizes = nullptr, *strides = nullptr;
  int32_t type = 0, owned = 0, on_device = 0;
  host().tensor_describe(tensor, &dim, &sizes, &strides, &type, &owned, &on_device);
  return {{host().tensor_data(tensor), type, {sizes, sizes + dim}, on_device != 0},
          {strides, strides + dim},
          owned != 0};
}

size_t Made::span_bytes() const {
  int64_t last = 0;
  for (size_t d = 0; d < strides.size(); d++) {
    if (array.shape[d] == 0) return 0;
    last += (array.shape[d] - 1) * strides[d];
  }
  return static_cast<size_t>(last + 1) * element_bytes(array.scalar_type);
}

Graph::Graph(const Code& code, const std::vector<Code>& libraries, const Weights& weights,
             const Manifest& manifest, const std::string& path)
    : Graph() {  // from here the destructor runs, whatever is thrown
  host();        // must be open before code that needs it
  for (const Code& library : libraries) open_op_library(library, path);
  library_ = open_code(code, path);
  find_entry_points(path);
  check(create_(&container_, 1, weights.device.c_str(), nullptr), "could not be started");
  check_signature(manifest, path);
  bind(weights, manifest, path);
}

Graph::~Graph() {
  if (container_) delete_(container_);
  if (copies_) host().copies_delete(copies_);
  for (void* tensor : constants_) host().tensor_delete(tensor);
}

void Graph::find_entry_points(const std::string& path) {
  const auto find = [&](const char* name, auto& function) {
    function = reinterpret_cast<std::remove_reference_t<decltype(function)>>(dlsym(library_, name));
    if (!function) bad_package("the code of " + path + " lacks " + name + "; export it again");
  };
  find("AOTInductorModelContainerCreateWithDevice", create_);
  find("AOTInductorModelContainerDelete", delete_);
  find("AOTInductorModelContainerRunSingleThreaded", run_);
  find("AOTInductorModelContainerGetNumInputs", input_count_);
  find("AOTInductorModelContainerGetNumOutputs", output_count_);
  find("AOTInductorModelContainerGetNumConstants", constant_count_);
  find("AOTInductorModelContainerGetConstantName", constant_name_);
  find("AOTInductorModelContainerGetConstantOriginalFQN", constant_fqn_);
  find("AOTInductorModelContainerGetConstantDataSize", constant_bytes_);
  find("AOTInductorModelContainerGetConstantDtype", constant_dtype_);
  find("AOTInductorModelContainerUpdateUserManagedConstantBufferPairs", bind_);
  last_error_ = reinterpret_cast<decltype(last_error_)>(dlsym(library_, "AOTInductorGetLastError"));
}

// Generated code reads as many inputs as it was compiled for, whatever it is given.
void Graph::check_signature(const Manifest& manifest, const std::string& path) {
  size_t inputs = 0;
  check(input_count_(container_, &inputs), "has no list of inputs");
  check(output_count_(container_, &outputs_), "has no list of outputs");
  if (inputs != manifest.signature.inputs.size() || outputs_ != manifest.output_count)
    bad_package("the code of " + path + " is not that of its manifest: it takes " +
                std::to_string(inputs) + " inputs and gives " + std::to_string(outputs_) +
                "; export it again");
}

void Graph::bind(const Weights& weights, const Manifest& manifest, const std::string& path) {
  size_t count = 0;
  check(constant_count_(container_, &count), "has no list of constants");
  std::vector<ConstantPair> pairs;
  for (size_t i = 0; i < count; i++) {
    const char *name = nullptr, *fqn = nullptr;
    check(constant_name_(container_, i, &name), "has a constant without a name");
    check(constant_fqn_(container_, i, &fqn), "has a constant without a name");
    const auto found = manifest.constants.find(fqn);
    if (found == manifest.constants.end())
      bad_package(path + " lacks the constant " + fqn + "; export it again");
    const Constant& c = found->second;
    if (c.offset > weights.bytes || c.bytes > weights.bytes - c.offset)
      bad_package(path + " is damaged: " + fqn + " lies beyond the weights; export it again");
    int32_t dtype = -1;
    size_t bytes = 0;
    check(constant_bytes_(container_, i, &bytes), "has a constant without a size");
    check(constant_dtype_(container_, i, &dtype), "has a constant without a dtype");
    if (dtype != c.scalar_type || c.bytes + kPadding < bytes || !fits(c))
      bad_package(path + " is damaged: the shape or dtype of " + fqn +
                  " is not what its code or its size says; export it again");
    void* tensor = nullptr;
    if (host().tensor_borrow(weights.data + c.offset, static_cast<int64_t>(c.shape.size()),
                             c.shape.data(), c.stride.data(), c.scalar_type, weights.on_gpu,
                             &tensor))
      bad_package(path + ": constant " + fqn + " has a shape we cannot hold");
    constants_.push_back(tensor);
    pairs.push_back({name, tensor});
  }
  copies_ = host().copies_begin();
  const int32_t refused = bind_(container_, pairs.data(), pairs.size(), false, true);
  host().copies_end();
  check(refused, "refuses its constants");
}

namespace {
// Tells the host's controls of a run, from its first handle to its last.
class HostRun {
 public:
  explicit HostRun(const std::vector<int64_t>& first_input) {
    host().run_begins(static_cast<int64_t>(first_input.size()), first_input.data());
  }
  ~HostRun() { host().run_ends(); }
  HostRun(const HostRun&) = delete;
  HostRun& operator=(const HostRun&) = delete;
};
}  // namespace

Results Graph::run(const std::vector<Array>& inputs) {
  std::vector<void*> made = enqueue(inputs, nullptr);
  const HostTrace reading("outputs");
  return Results(std::move(made));
}

std::vector<void*> Graph::enqueue(const std::vector<Array>& inputs, void* stream) {
  const HostRun run(inputs.empty() ? std::vector<int64_t>{} : inputs[0].shape);
  HostTrace binding("handles");
  std::vector<void*> handles;
  for (const Array& input : inputs) {
    const std::vector<int64_t> strides = row_major(input.shape);
    void* tensor = nullptr;
    if (host().tensor_borrow(input.data, static_cast<int64_t>(input.shape.size()),
                             input.shape.data(), strides.data(), input.scalar_type, input.on_gpu,
                             &tensor))
      bad_input("an input has more dimensions than the host holds");
    handles.push_back(tensor);  // generated code takes it over
  }
  std::vector<void*> made(outputs_);
  binding.end();
  check(run_(container_, handles.data(), handles.size(), made.data(), made.size(), stream, nullptr),
        "failed");
  return made;
}

Results::Results(std::vector<void*> tensors) : tensors_(std::move(tensors)) {
  for (void* tensor : tensors_) {
    Made made = describe(tensor);
    if (!made.owned || row_major(made.array.shape) != made.strides) {
      copies_.push_back(contiguous(made.array, made.strides));
      made.array.data = copies_.back().data();
    }
    arrays_.push_back(std::move(made.array));
  }
}

Results::~Results() {
  for (void* tensor : tensors_) host().tensor_delete(tensor);
}

void Graph::check(int32_t status, const char* what) const {
  if (status == 0) return;
  const char* reason = nullptr;
  if (last_error_) last_error_(&reason);
  throw Error(INGOT_FAILED, std::string("generated code ") + what + ": " +
                                (reason && *reason ? reason : "it gave no reason"));
}
}  // namespace ingot

#include "host.h"

#include <dlfcn.h>

#include <cstring>
#include <string>

#include "cpu.h"
#include "error.h"

namespace ingot {
namespace {
struct Host {
  const ingot_host_api* api;
  int32_t (*op_count)();
  const char* (*op_name)(int32_t);
  const char* (*op_schema)(int32_t);
  const char* (*ops_level)();
  double (*ops_measure_peak)(const char*, int32_t);
  const char* (*ops_last_error)();
};

std::string folder_of_this_library() {
  Dl_info info;
  if (!dladdr(reinterpret_cast<void*>(&folder_of_this_library), &info)) return "";
  const std::string path = info.dli_fname;
  return path.substr(0, path.rfind('/') + 1);
}

void* open_beside(const char* name) {
  void* library = dlopen((folder_of_this_library() + name).c_str(), RTLD_NOW | RTLD_LOCAL);
  if (!library)
    throw Error(INGOT_FAILED, std::string("cannot open ") + name + ": " + dlerror() +
                                  "; install or build Ingot again");
  return library;
}

template <class F>
void find(void* library, const char* name, F& function) {
  function = reinterpret_cast<F>(dlsym(library, name));
  if (!function)
    throw Error(INGOT_FAILED, std::string(name) +
                                  " is missing from Ingot's own libraries; they are "
                                  "of different versions: install them again");
}

Host open_host() {
  if (dlsym(RTLD_DEFAULT, "aoti_torch_empty_strided"))
    throw Error(INGOT_FAILED,
                "this process loaded libtorch with global symbols, which would capture our calls; "
                "load it with RTLD_LOCAL, or run the package in a process of its own");
  Host host{};
  void* library = open_beside("libingot_host.so.1");
  const ingot_host_api* (*get_api)() = nullptr;
  find(library, "ingot_host_get_api", get_api);
  host.api = get_api();
  void* ops = open_beside("libingot_ops.so.1");
  find(ops, "ingot_ops_count", host.op_count);
  find(ops, "ingot_ops_name", host.op_name);
  find(ops, "ingot_ops_schema", host.op_schema);
  find(ops, "ingot_ops_level", host.ops_level);
  find(ops, "ingot_ops_measure_peak", host.ops_measure_peak);
  find(ops, "ingot_ops_last_error", host.ops_last_error);
  if (const char* refusal = host.api->controls_from_environment()) bad_input(refusal);
  return host;
}

// A function of its CUDA half; 0 if it has none of that name, as without nvcc none of the ops'.
int32_t call_cuda_host(const char* name) {
  static void* const library = open_beside("libingot_cuda.so.1");
  const auto function = reinterpret_cast<int32_t (*)()>(dlsym(library, name));
  return function ? function() : 0;
}

const Host& opened() {
  static const Host host = open_host();
  return host;
}
}  // namespace

const ingot_host_api& host() { return *opened().api; }

int open_cuda_host() { return call_cuda_host("ingot_cuda_ops_version"); }

bool cuda_host_ran_out() {
  const bool ops_did = call_cuda_host("ingot_cuda_ops_ran_out") != 0;
  return call_cuda_host("ingot_cuda_ran_out") != 0 || ops_did;
}

int isa_level() {
  const char* name = opened().ops_level();
  if (!name) bad_input(opened().ops_last_error());
  // The kernels' names go on where a level has more than generated code uses: x86-64-v4-amx.
  return parse_isa(std::string(name, std::strlen("x86-64-vN")));
}

double ops_peak(const char* factor, int threads) {
  const double peak = opened().ops_measure_peak(factor, threads);
  if (peak == 0) bad_input(opened().ops_last_error());
  return peak;
}

const char* op_schema(const char* name) {
  const Host& host = opened();
  for (int32_t i = 0; i < host.op_count(); i++)
    if (std::strcmp(host.op_name(i), name) == 0) return host.op_schema(i);
  return nullptr;
}
}  // namespace ingot

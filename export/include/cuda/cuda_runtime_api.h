// What generated code calls of CUDA, by CUDA's names and as CUDA documents them, over
// libingot_cuda.so.1: each is there under its own name behind `ingot_`. So a package needs neither
// CUDA's headers where it is made, nor libcuda or libcudart where it is loaded, and the library
// sees every launch.
#pragma once

#include <cstddef>
#include <cstdint>

#define INGOT_CUDA(name, ...) name(__VA_ARGS__) __asm__("ingot_" #name)

extern "C" {
typedef int CUresult;
typedef int CUfunction_attribute;
typedef unsigned long long CUdeviceptr;
typedef struct CUmod_st* CUmodule;
typedef struct CUfunc_st* CUfunction;
typedef struct CUstream_st* CUstream;
constexpr CUresult CUDA_SUCCESS = 0, CUDA_ERROR_FILE_NOT_FOUND = 301;
constexpr CUfunction_attribute CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES = 8;

CUresult INGOT_CUDA(cuGetErrorString, CUresult error, const char** text);
CUresult INGOT_CUDA(cuModuleLoadData, CUmodule* module, const void* image);
CUresult INGOT_CUDA(cuModuleUnload, CUmodule module);
CUresult INGOT_CUDA(cuModuleGetFunction, CUfunction* function, CUmodule module, const char* name);
CUresult INGOT_CUDA(cuFuncSetAttribute, CUfunction function, CUfunction_attribute attribute,
                    int value);
CUresult INGOT_CUDA(cuLaunchKernel, CUfunction function, unsigned grid_x, unsigned grid_y,
                    unsigned grid_z, unsigned block_x, unsigned block_y, unsigned block_z,
                    unsigned shared_bytes, CUstream stream, void** arguments, void** extra);

typedef int cudaError_t;
typedef CUstream cudaStream_t;
typedef struct CUevent_st* cudaEvent_t;
constexpr cudaError_t cudaSuccess = 0, cudaErrorNotReady = 600;
enum cudaMemcpyKind { cudaMemcpyHostToDevice = 1, cudaMemcpyDefault = 4 };

const char* INGOT_CUDA(cudaGetErrorString, cudaError_t error);
cudaError_t INGOT_CUDA(cudaGetLastError);
cudaError_t INGOT_CUDA(cudaGetDevice, int* device);
cudaError_t INGOT_CUDA(cudaSetDevice, int device);
cudaError_t INGOT_CUDA(cudaMalloc, void** data, size_t bytes);
cudaError_t INGOT_CUDA(cudaFree, void* data);
cudaError_t INGOT_CUDA(cudaMemcpy, void* to, const void* from, size_t bytes, cudaMemcpyKind kind);
cudaError_t INGOT_CUDA(cudaEventCreate, cudaEvent_t* event);
cudaError_t INGOT_CUDA(cudaEventDestroy, cudaEvent_t event);
cudaError_t INGOT_CUDA(cudaEventRecord, cudaEvent_t event, cudaStream_t stream);
cudaError_t INGOT_CUDA(cudaEventQuery, cudaEvent_t event);
cudaError_t INGOT_CUDA(cudaEventSynchronize, cudaEvent_t event);
}  // extern "C"

// Kernels are embedded in the code: it loads none from files.
inline CUresult cuModuleLoad(CUmodule*, const char*) { return CUDA_ERROR_FILE_NOT_FOUND; }

#undef INGOT_CUDA

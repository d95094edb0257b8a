// Once warm, a step's tensors take nothing from the system.
#include <gtest/gtest.h>

#include <atomic>
#include <cstdlib>
#include <new>

#include "host/tensor.h"

namespace {
std::atomic<size_t> g_count{0};

void* counted(size_t bytes, size_t alignment) {
  g_count++;
  void* memory = std::aligned_alloc(alignment, (bytes + alignment - 1) / alignment * alignment);
  if (!memory) throw std::bad_alloc();
  return memory;
}
}  // namespace

// Of the whole test program: what any code in it asks for is counted.
[[gnu::noinline]] void* operator new(size_t bytes) { return counted(bytes ? bytes : 1, 16); }
[[gnu::noinline]] void* operator new(size_t bytes, std::align_val_t alignment) {
  return counted(bytes ? bytes : 1, static_cast<size_t>(alignment));
}
[[gnu::noinline]] void operator delete(void* memory) noexcept { std::free(memory); }
[[gnu::noinline]] void operator delete(void* memory, size_t) noexcept { std::free(memory); }
[[gnu::noinline]] void operator delete(void* memory, std::align_val_t) noexcept {
  std::free(memory);
}
[[gnu::noinline]] void operator delete(void* memory, size_t, std::align_val_t) noexcept {
  std::free(memory);
}

namespace ingot::host {
namespace {

// Tensors, views and borrowed ones, as generated code makes and drops them.
void step(char* weights) {
  const int64_t sizes[] = {3, 1000}, strides[] = {1000, 1};
  for (int i = 0; i < 50; i++) {
    Tensor* made = Tensor::empty(2, sizes, strides, kFloat32, nullptr);
    Tensor* view = new Tensor(*made);
    Tensor* borrowed = Tensor::borrow(weights, 2, sizes, strides, 0, kFloat32, nullptr);
    delete made;
    delete view;
    delete borrowed;
  }
}

TEST(Allocations, AWarmStepTakesNothingFromTheSystem) {
#if defined(__SANITIZE_ADDRESS__)
  GTEST_SKIP() << "tensors are not pooled here, so that their misuse is seen";
#endif
  alignas(64) static char weights[12000];
  step(weights);
  const size_t before = g_count;
  step(weights);
  EXPECT_EQ(g_count - before, 0u);
  EXPECT_GT(before, 0u);  // the counter counts
}

}  // namespace
}  // namespace ingot::host

// The aoti_torch_* interface as generated code uses it.
#include <gtest/gtest.h>

#include <array>
#include <numeric>

#include "host/pool.h"

struct AtenTensorOpaque;
using Handle = AtenTensorOpaque*;

extern "C" {
int32_t aoti_torch_clone(Handle tensor, Handle* result);
int32_t aoti_torch_copy_(Handle to, Handle from, int32_t non_blocking);
int32_t aoti_torch_create_tensor_from_blob(void* data, int64_t dim, const int64_t* sizes,
                                           const int64_t* strides, int64_t offset, int32_t dtype,
                                           int32_t device, int32_t index, Handle* result);
int32_t aoti_torch_delete_tensor_object(Handle tensor);
int32_t aoti_torch_empty_strided(int64_t dim, const int64_t* sizes, const int64_t* strides,
                                 int32_t dtype, int32_t device, int32_t index, Handle* result);
int32_t aoti_torch_get_data_ptr(Handle tensor, void** data);
int32_t aoti_torch_get_numel(Handle tensor, int64_t* numel);
int32_t aoti_torch_get_size(Handle tensor, int64_t d, int64_t* size);
int32_t aoti_torch_get_storage_offset(Handle tensor, int64_t* offset);
int32_t aoti_torch_get_storage_size(Handle tensor, int64_t* bytes);
int32_t aoti_torch_get_strides(Handle tensor, int64_t** strides);
int32_t aoti_torch_new_tensor_handle(Handle tensor, Handle* result);
int32_t aoti_torch__reinterpret_tensor(Handle tensor, int64_t dim, const int64_t* sizes,
                                       const int64_t* strides, int64_t offset, Handle* result);
}

namespace {

constexpr int32_t kFloat32 = 6;
constexpr int32_t kCpu = 0;
using Shape = std::vector<int64_t>;

// One owned handle.
class Owned {
 public:
  explicit Owned(Handle handle) : handle_(handle) {}
  Owned(const Owned&) = delete;
  Owned& operator=(const Owned&) = delete;
  ~Owned() { aoti_torch_delete_tensor_object(handle_); }
  Handle get() const { return handle_; }
  float* data() const {
    void* data = nullptr;
    aoti_torch_get_data_ptr(handle_, &data);
    return static_cast<float*>(data);
  }

 private:
  Handle handle_;
};

Handle empty(const Shape& sizes, const Shape& strides) {
  Handle handle = nullptr;
  EXPECT_EQ(aoti_torch_empty_strided(static_cast<int64_t>(sizes.size()), sizes.data(),
                                     strides.data(), kFloat32, kCpu, 0, &handle),
            0);
  return handle;
}

Handle borrow(float* data, const Shape& sizes, const Shape& strides, int64_t offset = 0) {
  Handle handle = nullptr;
  EXPECT_EQ(
      aoti_torch_create_tensor_from_blob(data, static_cast<int64_t>(sizes.size()), sizes.data(),
                                         strides.data(), offset, kFloat32, kCpu, 0, &handle),
      0);
  return handle;
}

TEST(TensorAbi, StridedMemoryReachesToTheLastElement) {
  const Owned tensor(empty({2, 3}, {10, 1}));
  int64_t bytes = 0;
  aoti_torch_get_storage_size(tensor.get(), &bytes);
  EXPECT_EQ(bytes, (10 + 2 + 1) * 4);
  tensor.data()[12] = 1;  // the last; sanitizer builds check it
}

TEST(TensorAbi, ZeroSizesAndScalars) {
  const Owned none(empty({0, 5}, {5, 1}));
  int64_t count = -1;
  aoti_torch_get_numel(none.get(), &count);
  EXPECT_EQ(count, 0);
  const Owned scalar(empty({}, {}));
  aoti_torch_get_numel(scalar.get(), &count);
  EXPECT_EQ(count, 1);
  scalar.data()[0] = 2;
}

TEST(TensorAbi, AViewKeepsTheStorageAlive) {
  Handle base = empty({4, 4}, {4, 1});
  Handle view_handle = nullptr;
  const Shape sizes = {2, 2}, strides = {4, 1};
  ASSERT_EQ(aoti_torch__reinterpret_tensor(base, 2, sizes.data(), strides.data(), 5, &view_handle),
            0);
  const Owned view(view_handle);
  float* start = nullptr;
  {
    const Owned owner(base);
    start = owner.data();
    start[5] = 42;
  }
  EXPECT_EQ(view.data(), start + 5);
  EXPECT_EQ(view.data()[0], 42);
}

TEST(TensorAbi, ViewsOfViewsAddTheirOffsets) {
  std::array<float, 20> memory;
  std::iota(memory.begin(), memory.end(), 0.0f);
  const Owned base(borrow(memory.data(), {10}, {1}, 2));
  EXPECT_EQ(base.data()[0], 2);
  Handle handle = nullptr;
  const int64_t size = 3, stride = 2;
  ASSERT_EQ(aoti_torch__reinterpret_tensor(base.get(), 1, &size, &stride, 4, &handle), 0);
  const Owned view(handle);
  int64_t offset = 0;
  aoti_torch_get_storage_offset(view.get(), &offset);
  EXPECT_EQ(offset, 6);
  EXPECT_EQ(view.data()[0], 6);
}

TEST(TensorAbi, DeletingABorrowedTensorLeavesTheMemory) {
  std::array<float, 4> memory = {1, 2, 3, 4};
  {
    const Owned borrowed(borrow(memory.data(), {4}, {1}));
  }
  EXPECT_EQ(memory[3], 4);
}

TEST(TensorAbi, CloneOfATransposedTensorIsContiguous) {
  std::array<float, 6> memory = {0, 1, 2, 3, 4, 5};
  const Owned transposed(borrow(memory.data(), {3, 2}, {1, 3}));
  Handle handle = nullptr;
  ASSERT_EQ(aoti_torch_clone(transposed.get(), &handle), 0);
  const Owned clone(handle);
  const std::array<float, 6> expected = {0, 3, 1, 4, 2, 5};
  for (size_t i = 0; i < 6; i++) EXPECT_EQ(clone.data()[i], expected[i]) << i;
  clone.data()[0] = 9;
  EXPECT_EQ(memory[0], 0);
}

TEST(TensorAbi, CopyFollowsBothStrides) {
  std::array<float, 6> from = {0, 1, 2, 3, 4, 5}, to = {};
  const Owned source(borrow(from.data(), {2, 3}, {3, 1}));
  const Owned target(borrow(to.data(), {2, 3}, {1, 2}));
  ASSERT_EQ(aoti_torch_copy_(target.get(), source.get(), 0), 0);
  EXPECT_EQ(to, (std::array<float, 6>{0, 3, 1, 4, 2, 5}));
}

// The same number of elements is not the same shape: walking one by the other's sizes leaves its
// memory.
TEST(TensorAbi, CopyRefusesAnotherShape) {
  std::array<float, 6> from = {}, to = {};
  const Owned source(borrow(from.data(), {2, 3}, {3, 1}));
  const Owned target(borrow(to.data(), {3, 2}, {2, 1}));
  EXPECT_NE(aoti_torch_copy_(target.get(), source.get(), 0), 0);
}

TEST(TensorAbi, RefusesAnotherDeviceAndWrongDimensions) {
  const int64_t size = 1;
  Handle handle = nullptr;
  EXPECT_NE(aoti_torch_empty_strided(1, &size, &size, kFloat32, 1, 0, &handle), 0);
  const Owned tensor(empty({3}, {1}));
  int64_t result = 0;
  EXPECT_NE(aoti_torch_get_size(tensor.get(), 1, &result), 0);
  EXPECT_EQ(aoti_torch_get_size(tensor.get(), 0, &result), 0);
  EXPECT_EQ(result, 3);
}

TEST(TensorAbi, TemporariesGoBackToThePool) {
  {
    const Owned warm(empty({1000}, {1}));
  }
  const size_t before = ingot::host::pool_bytes();
  for (int i = 0; i < 50; i++) const Owned temporary(empty({1000}, {1}));
  EXPECT_EQ(ingot::host::pool_bytes(), before);
}

}  // namespace

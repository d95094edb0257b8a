// The toy model as a package for a GPU, and tests that leave the fake GPU as they found it.
#pragma once

#include "fake_driver.h"
#include "toy_package.h"

namespace ingot::test {

inline PackageSource gpu_source() {
  PackageSource source = toy_source();
  source.manifest["device"] = "cuda";
  nlohmann::json& variant = source.manifest["variants"][0];
  variant.erase("isa");
  variant["device"] = "cuda";
  variant["name"] = variant["gpu_architecture"] = "sm_90";
  return source;
}

class GpuTest : public PackageTest {
 protected:
  GpuTest() { set({}); }
  // Whatever happened, nothing is left on the GPU.
  ~GpuTest() override {
    const fake_cuda::Counts left = fake_cuda_counts();
    EXPECT_EQ(left.allocations, 0);
    EXPECT_EQ(left.bytes, 0u);
    EXPECT_EQ(left.pinned, 0);
    EXPECT_EQ(left.streams, 0);
    EXPECT_EQ(left.events, 0);
    EXPECT_EQ(left.graphs, 0);
    EXPECT_LE(left.contexts, 1);  // the process keeps it,
    EXPECT_LE(left.modules, 1);   // for what code keeps in it
  }
  static void set(const fake_cuda::Settings& settings) { fake_cuda_reset(&settings); }
};

}  // namespace ingot::test

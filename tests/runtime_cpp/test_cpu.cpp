#include <gtest/gtest.h>
#include <sched.h>

#include <string>
#include <vector>

#include "cpu.h"

namespace ingot {
namespace {

TEST(CpuLevel, ParsesLevelNamesOnly) {
  EXPECT_EQ(parse_isa("x86-64-v2"), 2);
  EXPECT_EQ(parse_isa("x86-64-v3"), 3);
  EXPECT_EQ(parse_isa("x86-64-v4"), 4);
  for (const char* wrong : {"", "x86-64", "x86-64-v1", "x86-64-v5", "x86-64-v33", "v3", "arm64"}) {
    EXPECT_EQ(parse_isa(wrong), 0) << wrong;
  }
}

TEST(CpuFeatures, WhatIsMissingIsNamedUpToTheLevel) {
  const std::vector<CpuFeature> features = {
      {2, "sse4.2", true}, {3, "avx2", true}, {3, "fma", false}, {4, "avx512f", false}};
  EXPECT_EQ(missing_features(2, features), "");
  EXPECT_EQ(missing_features(3, features), "fma");
  EXPECT_EQ(missing_features(4, features), "fma, avx512f");
}

TEST(CpuFeatures, AgreeWithTheCompilersLevels) {
  __builtin_cpu_init();
  EXPECT_EQ(missing_features(2).empty(), __builtin_cpu_supports("x86-64-v2") != 0);
  EXPECT_EQ(missing_features(3).empty(), __builtin_cpu_supports("x86-64-v3") != 0);
  EXPECT_EQ(missing_features(4).empty(), __builtin_cpu_supports("x86-64-v4") != 0);
}

TEST(UsableCores, FollowTheAffinityMask) {
  cpu_set_t before;
  ASSERT_EQ(sched_getaffinity(0, sizeof before, &before), 0);
  EXPECT_GE(usable_cores(), 1);
  EXPECT_LE(usable_cores(), CPU_COUNT(&before));
  cpu_set_t one;
  CPU_ZERO(&one);
  for (int cpu = 0; cpu < CPU_SETSIZE; cpu++) {
    if (!CPU_ISSET(cpu, &before)) continue;
    CPU_SET(cpu, &one);
    break;
  }
  ASSERT_EQ(sched_setaffinity(0, sizeof one, &one), 0);
  EXPECT_EQ(usable_cores(), 1);
  ASSERT_EQ(sched_setaffinity(0, sizeof before, &before), 0);
}

}  // namespace
}  // namespace ingot

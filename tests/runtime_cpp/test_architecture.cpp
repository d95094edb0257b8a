#include <gtest/gtest.h>

#include "cuda/architecture.h"

namespace ingot::cuda {
namespace {

bool fits(const char* name, int capability) {
  return runs_on(parse_architecture(name), capability);
}

TEST(Architecture, RunsOnItsMajorVersionFromItsMinorOneOn) {
  EXPECT_TRUE(fits("sm_80", 80));
  EXPECT_TRUE(fits("sm_80", 89));
  EXPECT_FALSE(fits("sm_86", 80));
  EXPECT_FALSE(fits("sm_80", 90));
  EXPECT_FALSE(fits("sm_90", 89));
  EXPECT_TRUE(fits("sm_100", 103));
  EXPECT_FALSE(fits("sm_100", 110));
}

TEST(Architecture, SpecificCodeRunsOnItsOwnAlone) {
  EXPECT_TRUE(fits("sm_90a", 90));
  EXPECT_FALSE(fits("sm_100a", 103));
}

TEST(Architecture, WhatIsNoneRunsNowhere) {
  for (const char* name :
       {"", "sm_", "sm_9", "sm_a", "90", "sm_90b", "sm_90aa", "sm_1234", "x86-64-v3"})
    EXPECT_EQ(parse_architecture(name).capability, 0) << name;
  EXPECT_FALSE(fits("", 0));
}

}  // namespace
}  // namespace ingot::cuda

#include <gtest/gtest.h>
#include <sched.h>

#include <cstdlib>
#include <optional>

#include "cpu.h"
#include "error.h"

namespace ingot {
namespace {

// Sets INGOT_ISA for one scope.
class ForcedIsa {
 public:
  explicit ForcedIsa(const char* value) {
    if (const char* before = std::getenv("INGOT_ISA")) before_ = before;
    if (value != nullptr) {
      setenv("INGOT_ISA", value, 1);
    } else {
      unsetenv("INGOT_ISA");
    }
  }
  ~ForcedIsa() {
    if (before_) {
      setenv("INGOT_ISA", before_->c_str(), 1);
    } else {
      unsetenv("INGOT_ISA");
    }
  }

 private:
  std::optional<std::string> before_;
};

TEST(CpuLevel, ParsesLevelNamesOnly) {
  EXPECT_EQ(parse_isa("x86-64-v2"), 2);
  EXPECT_EQ(parse_isa("x86-64-v3"), 3);
  EXPECT_EQ(parse_isa("x86-64-v4"), 4);
  for (const char* wrong : {"", "x86-64", "x86-64-v1", "x86-64-v5", "x86-64-v33", "v3", "arm64"}) {
    EXPECT_EQ(parse_isa(wrong), 0) << wrong;
  }
}

TEST(CpuLevel, EnvironmentLowersTheLevel) {
  const ForcedIsa forced("x86-64-v2");
  EXPECT_EQ(isa_level(), 2);
}

TEST(CpuLevel, TheKernelsOwnLevelIsTheFourthHere) {
  int own = 0;
  {
    const ForcedIsa unset(nullptr);
    own = isa_level();
  }
  const ForcedIsa forced("x86-64-v4-bf16");
  if (own < 4) {
    EXPECT_THROW(isa_level(), Error);
  } else {
    EXPECT_EQ(isa_level(), 4);
  }
}

TEST(CpuLevel, AnEmptyEnvironmentVariableChangesNothing) {
  int own = 0;
  {
    const ForcedIsa unset(nullptr);
    own = isa_level();
  }
  const ForcedIsa empty("");
  EXPECT_EQ(isa_level(), own);
}

TEST(CpuLevel, RefusesAnUnknownLevel) {
  const ForcedIsa forced("avx9");
  try {
    isa_level();
    FAIL();
  } catch (const Error& error) {
    EXPECT_EQ(error.status, INGOT_BAD_INPUT);
    EXPECT_NE(std::string(error.what()).find("avx9"), std::string::npos);
  }
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

// Which ISA level's kernels run. The levels are those of the x86-64 psABI (section 3.1.1): v2 has
// SSE4.2, v3 adds AVX2, FMA and F16C, v4 adds AVX-512 F, BW, CD, DQ and VL; and two above them: v4
// with AVX512_BF16 and AVX512_VNNI (Cooper Lake, Zen 4 and later), and that with AMX_BF16 and
// AMX_INT8 (Sapphire Rapids and later).
#include <sys/syscall.h>
#include <unistd.h>

#include <atomic>
#include <cstdlib>
#include <cstring>

#include "ops_api.h"
#include "support.h"

namespace ingot {
namespace {

constexpr const char* kNames[] = {"x86-64-v2", "x86-64-v3", "x86-64-v4", "x86-64-v4-bf16",
                                  "x86-64-v4-amx"};
constexpr int kLevels = 5;
constexpr int kUnchosen = -1;
std::atomic<int> g_level{kUnchosen};

bool has_bf16() {
#if defined(INGOT_EMULATE_BF16)
  return true;
#else
  return __builtin_cpu_supports("avx512bf16") && __builtin_cpu_supports("avx512vnni");
#endif
}

// A process asks Linux for the tiles before it uses them, once for all its threads (kernel.org,
// arch/x86/xstate). Refused, for one, where a signal's stack could not hold them.
bool may_use_tiles() {
  constexpr int kRequestPermission = 0x1023, kTileData = 18;  // ARCH_REQ_XCOMP_PERM
  return syscall(SYS_arch_prctl, kRequestPermission, kTileData) == 0;
}

bool has_amx() {
#if defined(INGOT_EMULATE_BF16)
  return true;
#else
  static const bool has = __builtin_cpu_supports("amx-tile") &&
                          __builtin_cpu_supports("amx-bf16") &&
                          __builtin_cpu_supports("amx-int8") && may_use_tiles();
  return has;
#endif
}

// libgcc's test includes whether the operating system saves the wide registers.
int highest_supported() {
  if (__builtin_cpu_supports("x86-64-v4")) return !has_bf16() ? 2 : !has_amx() ? 3 : 4;
  if (__builtin_cpu_supports("x86-64-v3")) return 1;
  if (__builtin_cpu_supports("x86-64-v2")) return 0;
  fail("this CPU lacks x86-64-v2 (SSE4.2), the least that the kernels need");
}

int by_name(const char* name) {
  for (int i = 0; i < kLevels; i++) {
    if (strcmp(name, kNames[i]) != 0) continue;
    const int highest = highest_supported();
    if (i > highest) {
      fail("this CPU has %s, not %s; choose that or a lower level (INGOT_ISA)", kNames[highest],
           name);
    }
    return i;
  }
  fail("\"%s\" is no ISA level; INGOT_ISA takes %s, %s, %s, %s or %s", name, kNames[0], kNames[1],
       kNames[2], kNames[3], kNames[4]);
}

}  // namespace

Level current_level() {
  int level = g_level.load(std::memory_order_relaxed);
  if (level == kUnchosen) {
    const char* forced = getenv("INGOT_ISA");
    level = forced != nullptr && *forced != '\0' ? by_name(forced) : highest_supported();
    g_level.store(level, std::memory_order_relaxed);
  }
  return static_cast<Level>(level);
}

}  // namespace ingot

extern "C" {

const char* ingot_ops_level() try {
  return ingot::kNames[static_cast<int>(ingot::current_level())];
} catch (const ingot::Failure&) {
  return nullptr;
}

int32_t ingot_ops_set_level(const char* name) try {
  ingot::g_level.store(ingot::by_name(name), std::memory_order_relaxed);
  return 0;
} catch (const ingot::Failure&) {
  return 1;
}

}  // extern "C"

// Arithmetic of sizes that ops share.
#pragma once

#include <cstdint>

namespace ingot::INGOT_LEVEL {
namespace {

constexpr int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }
constexpr int64_t least(int64_t a, int64_t b) { return a < b ? a : b; }
constexpr int64_t most(int64_t a, int64_t b) { return a < b ? b : a; }

}  // namespace
}  // namespace ingot::INGOT_LEVEL

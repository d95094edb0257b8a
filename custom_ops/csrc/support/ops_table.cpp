#include "ops_api.h"
#include "support.h"

extern "C" {

const char* ingot_ops_last_error() { return ingot::last_error(); }

int32_t ingot_ops_count() { return ingot::kOpCount; }

const char* ingot_ops_name(int32_t index) {
  return index >= 0 && index < ingot::kOpCount ? ingot::kOps[index].name : nullptr;
}

const char* ingot_ops_schema(int32_t index) {
  return index >= 0 && index < ingot::kOpCount ? ingot::kOps[index].schema : nullptr;
}

}  // extern "C"

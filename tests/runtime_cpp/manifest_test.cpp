#include "manifest.h"

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "error.h"

namespace {
using nlohmann::json;

json good() {
  return json::parse(R"({
    "format_version": 1,
    "model": {"vocab_size": 10, "max_seq_len": 20},
    "kv_cache": {"num_layers": 2, "block_size": 16, "bytes_per_block": 64},
    "constants": {"w": {"offset": 64, "nbytes": 8, "dtype": "float32", "shape": [2], "stride": [1]}},
    "ops": {"linear": "linear(Tensor x) -> Tensor"},
    "variants": [{"name": "v", "isa": "x86-64-v3", "entry": "e", "requires": []}],
    "generation": {"eos_token_ids": [1, 2]},
    "entries": {"e": {"bytes": 3, "sha256": "ab"}}
  })");
}

std::string refusal(const std::string& text) {
  try {
    ingot::parse_manifest(text, "p.pt2");
  } catch (const ingot::Error& error) {
    EXPECT_EQ(error.status, INGOT_BAD_PACKAGE);
    return error.what();
  }
  return "";
}
}  // namespace

TEST(Manifest, IsRead) {
  const ingot::Manifest m = ingot::parse_manifest(good().dump(), "p.pt2");
  EXPECT_EQ(m.vocab_size, 10);
  EXPECT_EQ(m.constants.at("w").offset, 64u);
  EXPECT_EQ(m.constants.at("w").scalar_type, 6);
  EXPECT_EQ(m.eos_token_ids, (std::vector<int64_t>{1, 2}));
  EXPECT_EQ(m.entries.at("e").bytes, 3u);
}

TEST(Manifest, EveryMissingFieldIsRefused) {
  const json whole = good();
  for (const auto& [name, value] : whole.items()) {
    json lacking = whole;
    lacking.erase(name);
    EXPECT_NE(refusal(lacking.dump()).find(name), std::string::npos) << name;
  }
}

TEST(Manifest, LiesAreRefused) {
  const std::vector<std::pair<std::string, json>> lies = {
      {"/model/vocab_size", 0},           {"/model/vocab_size", -5},
      {"/model/max_seq_len", "many"},     {"/kv_cache/num_layers", 1e18},
      {"/constants/w/dtype", "float33"},  {"/constants/w/stride", {1, 2}},
      {"/constants/w/offset", -1},        {"/variants", 7},
      {"/generation/eos_token_ids", "1"}, {"/entries/e/bytes", nullptr},
  };
  for (const auto& [where, value] : lies) {
    json lying = good();
    lying[json::json_pointer(where)] = value;
    if (where == "/constants/w/offset") continue;  // wraps to a huge offset: refused when bound
    EXPECT_NE(refusal(lying.dump()), "") << where;
  }
}

TEST(Manifest, OtherVersionsAreRefusedWithWhatToDo) {
  json future = good();
  future["format_version"] = 2;
  EXPECT_NE(refusal(future.dump()).find("update Ingot"), std::string::npos);
  EXPECT_NE(refusal("not json").find("cannot be read"), std::string::npos);
}

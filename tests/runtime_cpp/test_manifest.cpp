#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "error.h"
#include "manifest.h"

namespace ingot {
namespace {

using nlohmann::json;

json good() {
  return json::parse(R"({
    "format_version": 1,
    "model": {"vocab_size": 100, "max_seq_len": 64},
    "kv_cache": {"block_size": 16, "bytes_per_block": 4096, "num_layers": 2},
    "constants": {"w": {"offset": 64, "nbytes": 24, "dtype": "float32", "shape": [2, 3], "stride": [3, 1]}},
    "ops": {"linear": "linear(Tensor x) -> Tensor"},
    "variants": [{"name": "v3", "isa": "x86-64-v3", "entry": "ingot/v3/model.so", "requires": []}],
    "generation": {"eos_token_ids": [1, 2]},
    "entries": {"ingot/weights.bin": {"bytes": 88, "sha256": "ab"}}})");
}

std::string refusal(std::string_view text) {
  try {
    parse_manifest(text, "a.pt2");
  } catch (const Error& error) {
    EXPECT_EQ(error.status, INGOT_BAD_PACKAGE);
    return error.what();
  }
  return "";
}

TEST(Manifest, ReadsWhatTheRuntimeNeeds) {
  const Manifest m = parse_manifest(good().dump(), "a.pt2");
  EXPECT_EQ(m.vocab_size, 100);
  EXPECT_EQ(m.max_seq_len, 64);
  EXPECT_EQ(m.num_layers, 2);
  EXPECT_EQ(m.block_size, 16);
  EXPECT_EQ(m.constants.at("w").offset, 64u);
  EXPECT_EQ(m.constants.at("w").stride, (std::vector<int64_t>{3, 1}));
  EXPECT_EQ(m.variants.at(0).entry, "ingot/v3/model.so");
  EXPECT_EQ(m.eos_token_ids, (std::vector<int64_t>{1, 2}));
  EXPECT_EQ(m.ops.at("linear"), "linear(Tensor x) -> Tensor");
}

TEST(Manifest, AReaderIgnoresFieldsItDoesNotKnow) {
  json m = good();
  m["future"] = {{"anything", 1}};
  EXPECT_NO_THROW(parse_manifest(m.dump(), "a.pt2"));
}

TEST(Manifest, RefusesATooNewVersionByName) {
  json m = good();
  m["format_version"] = 2;
  EXPECT_NE(refusal(m.dump()).find("format version 2"), std::string::npos);
  EXPECT_NE(refusal(m.dump()).find("update Ingot"), std::string::npos);
}

TEST(Manifest, RefusesEveryMissingField) {
  for (const char* section : {"model", "kv_cache", "constants", "ops", "variants", "generation",
                              "entries", "format_version"}) {
    json m = good();
    m.erase(section);
    EXPECT_NE(refusal(m.dump()).find(section), std::string::npos) << section;
  }
  for (const char* field : {"offset", "nbytes", "dtype", "shape", "stride"}) {
    json m = good();
    m["constants"]["w"].erase(field);
    EXPECT_NE(refusal(m.dump()).find(field), std::string::npos) << field;
  }
}

TEST(Manifest, RefusesSizesThatCannotBe) {
  for (const char* field : {"block_size", "bytes_per_block", "num_layers"}) {
    for (const json& wrong :
         {json(0), json(-1), json(int64_t{1} << 50), json("16"), json(nullptr)}) {
      json m = good();
      m["kv_cache"][field] = wrong;
      EXPECT_NE(refusal(m.dump()), "") << field << " = " << wrong;
    }
  }
}

TEST(Manifest, RefusesAnUnknownDtype) {
  json m = good();
  m["constants"]["w"]["dtype"] = "float4";
  EXPECT_NE(refusal(m.dump()).find("float4"), std::string::npos);
}

TEST(Manifest, RefusesAStrideThatDoesNotFitTheShape) {
  json m = good();
  m["constants"]["w"]["stride"] = {1};
  EXPECT_NE(refusal(m.dump()), "");
}

TEST(Manifest, RefusesTheTextCutAtEveryByte) {
  const std::string text = good().dump();
  for (size_t size = 0; size < text.size(); size++) {
    EXPECT_NE(refusal(std::string_view(text).substr(0, size)), "") << size;
  }
}

TEST(Manifest, RefusesDeepNestingWithoutOverflowingTheStack) {
  EXPECT_NE(refusal(std::string(1 << 20, '[')), "");
}

}  // namespace
}  // namespace ingot

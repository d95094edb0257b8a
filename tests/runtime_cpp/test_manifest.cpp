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
    "model": {"kind": "decoder", "vocab_size": 100, "max_seq_len": 64},
    "graph": {"inputs": [
      {"name": "tokens", "dtype": "int64", "shape": ["T"]},
      {"name": "positions", "dtype": "int64", "shape": ["T"]},
      {"name": "slot_mapping", "dtype": "int64", "shape": ["T"]},
      {"name": "query_start", "dtype": "int64", "shape": ["B+1"]},
      {"name": "seq_lens", "dtype": "int64", "shape": ["B"]},
      {"name": "context_lens", "dtype": "int64", "shape": ["B"]},
      {"name": "block_table", "dtype": "int64", "shape": ["B", "P"]},
      {"name": "logit_rows", "dtype": "int64", "shape": ["R"]},
      {"name": "kv_cache.0", "dtype": "uint8", "shape": ["num_blocks", 4096]},
      {"name": "kv_cache.1", "dtype": "uint8", "shape": ["num_blocks", 4096]}],
      "outputs": [{"name": "logits"}]},
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
  EXPECT_EQ(m.decoder.vocab_size, 100);
  EXPECT_EQ(m.decoder.max_seq_len, 64);
  EXPECT_EQ(m.decoder.num_layers, 2);
  EXPECT_EQ(m.decoder.block_size, 16);
  EXPECT_EQ(m.constants.at("w").offset, 64u);
  EXPECT_EQ(m.constants.at("w").stride, (std::vector<int64_t>{3, 1}));
  EXPECT_EQ(m.variants.at(0).entry, "ingot/v3/model.so");
  EXPECT_EQ(m.decoder.eos_token_ids, (std::vector<int64_t>{1, 2}));
  EXPECT_EQ(m.ops.at("linear"), "linear(Tensor x) -> Tensor");
}

TEST(Manifest, OtherKindsNeedNoCache) {
  json m = good();
  m.erase("kv_cache");
  m.erase("generation");
  m["model"] = {{"kind", "encoder"}, {"vocab_size", 30}, {"hidden_size", 8}};
  m["embedding"] = {{"pooling", "cls"}, {"normalize", true}, {"max_tokens", 12}};
  auto& inputs = m["graph"]["inputs"];
  inputs.erase(inputs.begin() + 4, inputs.end());
  const Manifest encoder = parse_manifest(m.dump(), "a.pt2");
  EXPECT_EQ(encoder.kind, Kind::encoder);
  EXPECT_EQ(encoder.embedding.pooling, Pooling::cls);
  EXPECT_EQ(encoder.embedding.max_tokens, 12);
  EXPECT_EQ(encoder.signature.inputs.at(3).shape.at(0).offset, 1);
  m["embedding"]["pooling"] = "lasttoken";
  EXPECT_NE(refusal(m.dump()).find("pooling is 'lasttoken'"), std::string::npos);
  m["model"]["kind"] = "image-classifier";
  m["graph"]["symbols"] = {{"T", {1, 9}}};
  const Manifest module = parse_manifest(m.dump(), "a.pt2");
  EXPECT_EQ(module.kind, Kind::module);
  EXPECT_EQ(module.signature.symbols.at("T").most, 9);
}

TEST(Manifest, AGraphThatIsNotItsKindsIsRefused) {
  json m = good();
  m["graph"]["inputs"].erase(0);
  EXPECT_NE(refusal(m.dump()).find("takes 10 inputs, not 9"), std::string::npos);
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
  const std::string deep = std::string(1 << 20, '[') + std::string(1 << 20, ']');
  std::string text = good().dump();
  text.insert(text.find("\"kind\""), "\"deep\": " + deep + ", ");  // in what is written again
  EXPECT_NE(refusal(text).find("nested too deeply"), std::string::npos);
}

TEST(Manifest, RefusesMoreTextThanItReads) {
  json m = good();
  m["model"]["name"] = std::string(17 << 20, 'n');
  EXPECT_NE(refusal(m.dump()).find("bytes, of which this library reads"), std::string::npos);
}

TEST(Manifest, ReadsManyConstants) {
  json m = good();
  for (int i = 0; i < 20000; i++)
    m["constants"][std::string("w").append(std::to_string(i))] = m["constants"]["w"];
  EXPECT_EQ(parse_manifest(m.dump(), "a.pt2").constants.size(), 20001u);
}

TEST(Manifest, RefusesNumbersThatAreNoWholeNumbersOf64Bits) {
  for (const char* wrong : {"1e300", "0.5", "-1e300", "18446744073709551615", "-1", "true", "null",
                            "[64]", "1e999", "NaN"}) {
    for (const char* field : {"\"offset\":64", "\"nbytes\":24", "\"bytes\":88", "\"shape\":[2",
                              "\"stride\":[3", "\"bytes_per_block\":4096", "\"max_seq_len\":64"}) {
      std::string text = good().dump();
      const size_t at = text.find(field), number = text.find_first_of("0123456789", at);
      ASSERT_NE(at, std::string::npos) << field;
      text.replace(number, text.find_first_not_of("0123456789", number) - number, wrong);
      EXPECT_NE(refusal(text), "") << field << " = " << wrong;
    }
  }
}

TEST(Manifest, RefusesDefaultsOfAnotherType) {
  const std::vector<std::pair<const char*, json>> wrongs = {{"temperature", "hot"},
                                                            {"top_p", true},
                                                            {"do_sample", 1},
                                                            {"top_k", 0.5},
                                                            {"top_k", int64_t{1} << 40}};
  for (const auto& [name, wrong] : wrongs) {
    json m = good();
    m["generation"][name] = wrong;
    EXPECT_NE(refusal(m.dump()).find(name), std::string::npos) << name;
  }
}

// As in Python's reader: the two never differ about a manifest.
TEST(Manifest, OfAKeyThatIsThereTwiceTheLastCounts) {
  std::string text = good().dump();
  text.insert(text.find("\"vocab_size\""), "\"vocab_size\": 7, ");
  EXPECT_EQ(parse_manifest(text, "a.pt2").decoder.vocab_size, 100);
}

TEST(Manifest, RefusesAThousandOpLibraries) {
  json m = good();
  m["op_libraries"] = std::vector<std::string>(1000, "ingot/libraries/a.so");
  EXPECT_NE(refusal(m.dump()).find("too many op_libraries"), std::string::npos);
}

TEST(Manifest, RefusesAConstantThatIsNotAligned) {
  json m = good();
  m["constants"]["w"]["offset"] = 4;
  EXPECT_NE(refusal(m.dump()).find("no multiple of 64"), std::string::npos);
}

TEST(Manifest, AGraphOfItsKindTakesInputsOfItsTypes) {
  for (const size_t input : {size_t{0}, size_t{6}, size_t{8}}) {
    json m = good();
    m["graph"]["inputs"][input]["dtype"] = "int32";
    EXPECT_NE(refusal(m.dump()).find("is not what a graph of this kind takes"), std::string::npos);
    m = good();
    m["graph"]["inputs"][input]["shape"] = json::array();
    EXPECT_NE(refusal(m.dump()).find("is not what a graph of this kind takes"), std::string::npos);
  }
}

}  // namespace
}  // namespace ingot

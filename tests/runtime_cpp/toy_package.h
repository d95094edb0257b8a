// Packages with the toy model inside, whole or with a fault, in a folder that is removed at the
// end.
#pragma once

#include <gtest/gtest.h>
#include <unistd.h>

#include <cstring>
#include <filesystem>
#include <fstream>
#include <functional>
#include <map>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "ingot.h"
#include "sha256.h"
#include "toy_rule.h"
#include "zip_writer.h"

namespace ingot::test {

inline constexpr int64_t kMaxSeqLen = 640;
inline constexpr int64_t kStopToken = 5;

inline std::string read_file(const std::filesystem::path& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

struct PackageSource {
  std::map<std::string, std::string> entries;  // all but the manifest
  nlohmann::json manifest;

  // `entries` as the manifest states them; call it before damage that the hashes are to find.
  void hash_entries() {
    for (const auto& [name, data] : entries) {
      manifest["entries"][name] = {{"bytes", data.size()}, {"sha256", sha256(data)}};
    }
  }
  std::string zip() const {
    std::vector<ZipEntry> all;
    for (const auto& [name, data] : entries) all.push_back({"model/" + name, data});
    all.push_back({"model/ingot/manifest.json", manifest.dump()});
    return write_zip(all);
  }
};

// Token t stands for the one byte 'A' + t % 26; the stop token is special and stands for none.
inline std::string token_table() {
  std::string offsets, text;
  for (int64_t token = 0; token < kVocab; token++) {
    put(offsets, text.size(), 4);
    if (token != kStopToken) text += static_cast<char>('A' + token % 26);
  }
  put(offsets, text.size(), 4);
  std::string table;
  put(table, kVocab, 4);
  return table + offsets + text;
}

inline nlohmann::json toy_graph() {
  auto inputs = nlohmann::json::array();
  const auto add = [&](const std::string& name, const char* dtype, const nlohmann::json& shape) {
    inputs.push_back({{"name", name}, {"dtype", dtype}, {"shape", shape}});
  };
  for (const char* name : {"tokens", "positions", "slot_mapping"}) add(name, "int64", {"T"});
  add("query_start", "int64", {"B+1"});
  for (const char* name : {"seq_lens", "context_lens"}) add(name, "int64", {"B"});
  add("block_table", "int64", {"B", "P"});
  add("logit_rows", "int64", {"R"});
  for (int layer = 0; layer < kLayers; layer++)
    add("kv_cache." + std::to_string(layer), "uint8", {"num_blocks", kBytesPerBlock});
  return {{"inputs", inputs}, {"outputs", {{{"name", "logits"}}}}};
}

inline PackageSource toy_source() {
  PackageSource source;
  const std::string code = "ingot/variants/x86-64-v2/model.so";
  std::string weights(128, '\0');
  std::memcpy(weights.data() + 64, &kSalt, sizeof kSalt);
  source.entries = {{code, read_file(TOY_MODEL)},
                    {"ingot/weights.bin", weights},
                    {"ingot/token_bytes.bin", token_table()},
                    {"ingot/tokenizer.json", "{}"}};
  source.manifest = {
      {"format_version", 1},
      {"model", {{"kind", "decoder"}, {"vocab_size", kVocab}, {"max_seq_len", kMaxSeqLen}}},
      {"kv_cache",
       {{"dtype", "float32"},
        {"block_size", kBlockSize},
        {"bytes_per_block", kBytesPerBlock},
        {"num_layers", kLayers}}},
      {"graph", toy_graph()},
      {"constants",
       {{"toy.salt",
         {{"offset", 64},
          {"nbytes", 4},
          {"dtype", "float32"},
          {"shape", nlohmann::json::array({1})},
          {"stride", nlohmann::json::array({1})}}}}},
      {"ops", nlohmann::json::object()},
      {"variants", nlohmann::json::array({{{"name", "x86-64-v2"},
                                           {"device", "cpu"},
                                           {"isa", "x86-64-v2"},
                                           {"entry", code},
                                           {"requires", nlohmann::json::array()}}})},
      {"generation", {{"eos_token_ids", {kStopToken}}, {"do_sample", false}}},
      {"tokenizer", true},
      {"entries", nlohmann::json::object()}};
  source.hash_entries();
  return source;
}

// Its logits are those of the toy model, less kSalt and more by this.
inline PackageSource salted_source(float salt) {
  PackageSource source = toy_source();
  std::memcpy(source.entries["ingot/weights.bin"].data() + 64, &salt, sizeof salt);
  source.hash_entries();
  return source;
}

inline ingot_options one_thread() {
  ingot_options options = {};
  options.struct_bytes = sizeof options;
  options.threads = 1;
  return options;
}

using Package = std::unique_ptr<ingot_package, decltype(&ingot_package_close)>;
using Session = std::unique_ptr<ingot_session, decltype(&ingot_session_close)>;

class PackageTest : public testing::Test {
 protected:
  PackageTest() {
    std::string name = (std::filesystem::temp_directory_path() / "ingot-test-XXXXXX").string();
    folder_ = mkdtemp(name.data());
  }
  ~PackageTest() override { std::filesystem::remove_all(folder_); }

  std::string write(const std::string& bytes) {
    const std::filesystem::path path = folder_ / std::to_string(written_++).append(".pt2");
    std::ofstream(path, std::ios::binary) << bytes;
    return path.string();
  }
  Package open(const PackageSource& source = toy_source(), int64_t kv_tokens = 0,
               int32_t threads = 1) {
    ingot_options options = one_thread();
    options.threads = threads;
    options.kv_tokens = kv_tokens;
    ingot_package* package = nullptr;
    EXPECT_EQ(ingot_package_open(write(source.zip()).c_str(), &options, &package), INGOT_OK)
        << ingot_last_error();
    return {package, ingot_package_close};
  }
  // The sentence with which these bytes are refused as a bad package.
  std::string refusal(const std::string& bytes, bool verify = false, const char* pin = nullptr) {
    ingot_options options = one_thread();
    options.verify_weights = verify;
    options.manifest_sha256 = pin;
    ingot_package* package = nullptr;
    const ingot_status status = ingot_package_open(write(bytes).c_str(), &options, &package);
    EXPECT_EQ(status, INGOT_BAD_PACKAGE) << ingot_last_error();
    if (status == INGOT_OK) ingot_package_close(package);
    return status == INGOT_OK ? "" : ingot_last_error();
  }

  std::filesystem::path folder_;

 private:
  int written_ = 0;
};

inline Session new_session(const Package& package) {
  ingot_session* session = nullptr;
  EXPECT_EQ(ingot_session_create(package.get(), &session), INGOT_OK) << ingot_last_error();
  return {session, ingot_session_close};
}

struct Generated {
  ingot_status status;
  std::vector<int64_t> tokens;
  ingot_stats stats;
};

inline ingot_sampling greedy_sampling(int64_t max_new_tokens) {
  ingot_sampling sampling = {};
  sampling.struct_bytes = sizeof sampling;
  sampling.max_new_tokens = max_new_tokens;
  sampling.top_p = 1;
  sampling.ignore_eos = 1;
  return sampling;
}

// `keep_on(token)` false stops.
inline Generated generate(ingot_session* session, const std::vector<int64_t>& prompt,
                          const ingot_sampling& sampling,
                          std::function<bool(int64_t)> keep_on = nullptr) {
  struct Taken {
    std::vector<int64_t> tokens;
    std::function<bool(int64_t)> keep_on;
  } taken = {{}, std::move(keep_on)};
  Generated result = {};
  result.stats.struct_bytes = sizeof result.stats;
  result.status = ingot_session_generate(
      session, prompt.data(), prompt.size(), &sampling,
      [](int64_t token, void* user) -> int32_t {
        auto& to = *static_cast<Taken*>(user);
        to.tokens.push_back(token);
        return to.keep_on && !to.keep_on(token);
      },
      &taken, &result.stats);
  result.tokens = std::move(taken.tokens);
  return result;
}

inline Generated generate(const Session& session, const std::vector<int64_t>& prompt,
                          const ingot_sampling& sampling,
                          std::function<bool(int64_t)> keep_on = nullptr) {
  return generate(session.get(), prompt, sampling, std::move(keep_on));
}

inline std::vector<int64_t> joined(std::vector<int64_t> a, const std::vector<int64_t>& b) {
  a.insert(a.end(), b.begin(), b.end());
  return a;
}

// `count` tokens that differ by `seed`, none of them special.
inline std::vector<int64_t> prompt_of(int64_t count, int64_t seed = 0) {
  std::vector<int64_t> prompt;
  for (int64_t i = 0; i < count; i++) prompt.push_back((i * 31 + seed * 17 + 7) % (kVocab - 1));
  return prompt;
}

}  // namespace ingot::test

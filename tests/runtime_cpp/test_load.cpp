// Opening packages: good ones, and each way a bad one is refused.
#include <chrono>
#include <thread>

#include "soon.h"
#include "toy_package.h"

namespace ingot::test {
namespace {

using LoadTest = PackageTest;
using nlohmann::json;

void expect_contains(const std::string& sentence, const std::string& word) {
  EXPECT_NE(sentence.find(word), std::string::npos) << "'" << sentence << "' lacks " << word;
}

TEST_F(LoadTest, ShowsItsManifestAndEntries) {
  const PackageSource source = toy_source();
  const Package package = open(source);
  EXPECT_EQ(json::parse(ingot_package_manifest(package.get())), source.manifest);
  const void* data = nullptr;
  size_t bytes = 0;
  ASSERT_EQ(ingot_package_entry(package.get(), "ingot/tokenizer.json", &data, &bytes), INGOT_OK);
  EXPECT_EQ(std::string_view(static_cast<const char*>(data), bytes), "{}");
  EXPECT_EQ(ingot_package_entry(package.get(), "ingot/nothing", &data, &bytes), INGOT_BAD_INPUT);
  expect_contains(ingot_last_error(), "ingot/nothing");
}

TEST_F(LoadTest, TokenBytes) {
  const Package package = open();
  const char* data = nullptr;
  size_t bytes = 0;
  ASSERT_EQ(ingot_package_token_bytes(package.get(), 27, &data, &bytes), INGOT_OK);
  EXPECT_EQ(std::string_view(data, bytes), "B");
  ASSERT_EQ(ingot_package_token_bytes(package.get(), kStopToken, &data, &bytes), INGOT_OK);
  EXPECT_EQ(bytes, 0u);
  ASSERT_EQ(ingot_package_token_bytes(package.get(), kVocab - 1, &data, &bytes), INGOT_OK);
  EXPECT_EQ(ingot_package_token_bytes(package.get(), kVocab, &data, &bytes), INGOT_BAD_INPUT);
  EXPECT_EQ(ingot_package_token_bytes(package.get(), -1, &data, &bytes), INGOT_BAD_INPUT);
}

TEST_F(LoadTest, ADamagedTokenTableIsNeverReadBeyondItsEnd) {
  const std::string table = token_table();
  for (const size_t size : {size_t{0}, size_t{3}, size_t{4}, size_t{100}, table.size() - 1}) {
    PackageSource source = toy_source();
    source.entries["ingot/token_bytes.bin"] = table.substr(0, size);
    source.hash_entries();
    const Package package = open(source);
    for (int64_t token = 0; token < kVocab; token++) {
      const char* data = nullptr;
      size_t bytes = 0;
      if (ingot_package_token_bytes(package.get(), token, &data, &bytes) != INGOT_OK) continue;
      EXPECT_LE(bytes, 1u);
    }
  }
}

// Any shared library will do: bytes behind its end make it another one of the same name.
PackageSource with_op_library(const std::string& appended) {
  PackageSource source = toy_source();
  source.entries["ingot/libraries/libtoy.so"] = read_file(TOY_MODEL) + appended;
  source.manifest["op_libraries"] = {"ingot/libraries/libtoy.so"};
  source.hash_entries();
  return source;
}

TEST_F(LoadTest, TwoOpLibrariesOfOneNameAreRefused) {
  const Package one = open(with_op_library("1"));
  const Package again = open(with_op_library("1"));
  expect_contains(refusal(with_op_library("2").zip()), "the op library libtoy_model.so of ");
  const Package after = open(with_op_library("1"));
}

TEST_F(LoadTest, TheManifestOfAPackageForAnotherCpuCanBeRead) {
  PackageSource source = toy_source();
  source.manifest["variants"][0]["isa"] = "x86-64-v9";
  char* text = nullptr;
  ASSERT_EQ(ingot_read_manifest(write(source.zip()).c_str(), &text), INGOT_OK);
  EXPECT_EQ(json::parse(text), source.manifest);
  ingot_free(text);
  expect_contains(refusal(source.zip()), "x86-64-v9");
}

// Two variants of one graph; INGOT_ISA chooses once a process, as ctest runs each of these tests in
// one of its own.
PackageSource source_of(const std::vector<const char*>& levels) {
  PackageSource source = toy_source();
  const std::string first = "ingot/variants/x86-64-v2/model.so";
  const std::string code = source.entries[first];
  source.entries.erase(first);
  source.manifest["variants"] = json::array();
  for (const std::string level : levels) {
    const std::string entry = "ingot/variants/" + level + "/model.so";
    source.entries[entry] = code;
    source.manifest["variants"].push_back({{"name", level},
                                           {"device", "cpu"},
                                           {"isa", level},
                                           {"entry", entry},
                                           {"requires", json::array()}});
  }
  source.hash_entries();
  return source;
}

TEST_F(LoadTest, TheBestVariantIsLoaded) {
  const Package package = open(source_of({"x86-64-v2", "x86-64-v9"}));
  EXPECT_STREQ(ingot_package_variant(package.get()), "x86-64-v2");
  EXPECT_EQ(generate(new_session(package), {1, 2}, greedy_sampling(5)).tokens, greedy({1, 2}, 5));
}

TEST_F(LoadTest, TheEnvironmentForcesAVariant) {
  ASSERT_EQ(setenv("INGOT_ISA", "x86-64-v2", 1), 0);
  const Package package = open(source_of({"x86-64-v4", "x86-64-v3", "x86-64-v2"}));
  EXPECT_STREQ(ingot_package_variant(package.get()), "x86-64-v2");
  const std::string sentence = refusal(source_of({"x86-64-v4", "x86-64-v3"}).zip());
  expect_contains(sentence, "has code for x86-64-v4, x86-64-v3");
  expect_contains(sentence, "x86-64-v2");
}

TEST_F(LoadTest, AnUnknownLevelInTheEnvironmentIsRefused) {
  ASSERT_EQ(setenv("INGOT_ISA", "avx9", 1), 0);
  ingot_package* package = nullptr;
  const std::string path = write(toy_source().zip());
  EXPECT_EQ(ingot_package_open(path.c_str(), nullptr, &package), INGOT_BAD_INPUT);
  expect_contains(ingot_last_error(), "\"avx9\" is no ISA level; INGOT_ISA takes x86-64-v2");
}

TEST_F(LoadTest, OpensTheSamePackageManyTimes) {
  const std::string path = write(toy_source().zip());
  for (int i = 0; i < 5; i++) {
    ingot_package* opened = nullptr;
    ASSERT_EQ(ingot_package_open(path.c_str(), nullptr, &opened), INGOT_OK) << ingot_last_error();
    const Package package(opened, ingot_package_close);
    EXPECT_EQ(generate(new_session(package), {1, 2}, greedy_sampling(5)).tokens, greedy({1, 2}, 5));
  }
}

TEST_F(LoadTest, TwoPackagesAtOnceKeepTheirOwnConstants) {
  const float salt = 2;
  const Package one = open(), two = open(salted_source(salt));
  const int64_t token = 3;
  std::vector<float> first(kVocab), second(kVocab);
  ASSERT_EQ(ingot_session_logits(new_session(one).get(), &token, 1, first.data()), INGOT_OK);
  ASSERT_EQ(ingot_session_logits(new_session(two).get(), &token, 1, second.data()), INGOT_OK);
  EXPECT_FLOAT_EQ(second[7] - first[7], salt - kSalt);
}

TEST_F(LoadTest, RefusesDamagedCode) {
  PackageSource source = toy_source();
  source.entries["ingot/variants/x86-64-v2/model.so"][2000] ^= 1;
  expect_contains(refusal(source.zip()), "damaged");
}

TEST_F(LoadTest, FindsDamagedWeightsWhenAsked) {
  PackageSource source = toy_source();
  source.entries["ingot/weights.bin"][65] ^= 1;
  open(source);
  expect_contains(refusal(source.zip(), true), "ingot/weights.bin");
}

TEST_F(LoadTest, FindsAnyDamagedEntryWhenAsked) {
  for (const auto& [name, data] : toy_source().entries) {
    PackageSource source = toy_source();
    source.entries[name].back() ^= 1;
    expect_contains(refusal(source.zip(), true), name);
  }
}

TEST_F(LoadTest, RefusesEntriesThatTheManifestDoesNotListWhenAsked) {
  PackageSource source = toy_source();
  source.entries["ingot/signature.json"] = "{}";
  ingot_options options = one_thread();
  options.verify_weights = 1;
  ingot_package* package = nullptr;
  ASSERT_EQ(ingot_package_open(write(source.zip()).c_str(), &options, &package), INGOT_OK)
      << ingot_last_error();
  ingot_package_close(package);
  source.entries["ingot/chat_template.jinja"] = "another";
  expect_contains(refusal(source.zip(), true), "ingot/chat_template.jinja");
  source = toy_source();
  source.entries.erase("ingot/tokenizer.json");
  expect_contains(refusal(source.zip(), true), "ingot/tokenizer.json");
}

TEST_F(LoadTest, OpensThePinnedPackageOnly) {
  const PackageSource source = toy_source();
  const std::string hash = sha256(source.manifest.dump());
  ingot_options options = one_thread();
  options.manifest_sha256 = hash.c_str();
  ingot_package* package = nullptr;
  ASSERT_EQ(ingot_package_open(write(source.zip()).c_str(), &options, &package), INGOT_OK)
      << ingot_last_error();
  ingot_package_close(package);
  const std::string other(64, '0');
  expect_contains(refusal(source.zip(), false, other.c_str()), hash);
  expect_contains(refusal(source.zip(), false, ""), "is not the package that was asked for");
}

TEST_F(LoadTest, RefusesTheFileCutShort) {
  const std::string zip = toy_source().zip();
  for (const size_t size : {size_t{1}, size_t{100}, zip.size() / 2, zip.size() - 1}) {
    EXPECT_NE(refusal(zip.substr(0, size)), "") << size;
  }
}

TEST_F(LoadTest, RefusesAnOpOfAnotherSchema) {
  PackageSource source = toy_source();
  source.manifest["ops"]["linear"] = "linear(Tensor x, int future) -> Tensor";
  expect_contains(refusal(source.zip()), "linear(Tensor x, int future) -> Tensor");
  source.manifest["ops"] = {{"no_such_op", "no_such_op(Tensor x) -> Tensor"}};
  expect_contains(refusal(source.zip()), "no_such_op");
}

TEST_F(LoadTest, RefusesWhatNeedsLibtorch) {
  PackageSource source = toy_source();
  source.manifest["variants"][0]["requires"] = {"aoti_torch_cpu_sort"};
  expect_contains(refusal(source.zip()), "aoti_torch_cpu_sort");
}

TEST_F(LoadTest, RefusesATooNewFormat) {
  PackageSource source = toy_source();
  source.manifest["format_version"] = 2;
  expect_contains(refusal(source.zip()), "update Ingot");
}

TEST_F(LoadTest, RefusesCodeThatIsNotASharedObject) {
  PackageSource source = toy_source();
  source.entries["ingot/variants/x86-64-v2/model.so"] = "not an ELF file";
  source.hash_entries();
  expect_contains(refusal(source.zip()), "cannot be loaded");
}

class ConstantTest : public PackageTest {
 protected:
  std::string refusal_of(const json& changes) {
    PackageSource source = toy_source();
    source.manifest["constants"]["toy.salt"].update(changes);
    return refusal(source.zip());
  }
};

TEST_F(ConstantTest, MissingOnesAreNamed) {
  PackageSource source = toy_source();
  source.manifest["constants"] = json::object();
  expect_contains(refusal(source.zip()), "toy.salt");
}

TEST_F(ConstantTest, BeyondTheWeights) {
  expect_contains(refusal_of({{"offset", 128}}), "toy.salt");
  expect_contains(refusal_of({{"nbytes", 1000}}), "toy.salt");
  expect_contains(refusal_of({{"offset", UINT64_MAX - 2}}), "toy.salt");
}

// nbytes says that it fits, the shape reaches further.
TEST_F(ConstantTest, AShapeLargerThanItsBytes) { EXPECT_NE(refusal_of({{"shape", {1000}}}), ""); }

TEST_F(ConstantTest, AStrideThatLeavesItsBytes) {
  EXPECT_NE(refusal_of({{"shape", {2}}, {"nbytes", 8}, {"stride", {1000}}}), "");
  EXPECT_NE(refusal_of({{"shape", {2}}, {"nbytes", 8}, {"stride", {-100}}}), "");
}

// Empty, but with sizes whose product no 64 bits hold.
TEST_F(ConstantTest, AnEmptyOneOfEndlessSizes) {
  const int64_t large = int64_t{1} << 40;
  const json sizes = {0, large, large, large};
  EXPECT_NE(refusal_of({{"shape", sizes}, {"stride", sizes}}), "");
}

TEST_F(ConstantTest, NegativeSizes) { EXPECT_NE(refusal_of({{"shape", {-1}}}), ""); }

TEST_F(ConstantTest, AnotherDtypeThanTheCodesOwn) {
  EXPECT_NE(refusal_of({{"dtype", "bfloat16"}}), "");
}

// Generated code reads as many inputs as it was compiled for, whatever it is given.
TEST_F(LoadTest, RefusesAnotherNumberOfLayersThanTheCodesOwn) {
  for (const int64_t layers : {kLayers - 1, kLayers + 1}) {
    PackageSource source = toy_source();
    source.manifest["kv_cache"]["num_layers"] = layers;
    EXPECT_NE(refusal(source.zip()), "") << layers;
  }
}

// Only the op knows a block's layout, and it knows one size.
TEST_F(LoadTest, RefusesAnotherBlockSize) {
  PackageSource source = toy_source();
  source.manifest["kv_cache"]["block_size"] = 8;
  EXPECT_NE(refusal(source.zip()), "");
}

TEST_F(LoadTest, WeightsCanBeCopied) {
  PackageSource source = toy_source();
  std::string& weights = source.entries["ingot/weights.bin"];
  const size_t offset = (size_t{65} << 20) + 4096;  // parts of 32 MiB, and a page that is cut
  weights.resize(offset + 64);
  std::memcpy(weights.data() + offset, &kSalt, sizeof kSalt);
  source.manifest["constants"]["toy.salt"]["offset"] = offset;
  std::memset(weights.data(), 0, 128);
  source.hash_entries();
  ingot_options options = one_thread();
  options.copy_weights = 1;
  ingot_package* opened = nullptr;
  ASSERT_EQ(ingot_package_open(write(source.zip()).c_str(), &options, &opened), INGOT_OK);
  const Package package(opened, ingot_package_close);
  const Session session = new_session(package);
  EXPECT_EQ(generate(session, {3, 1, 4}, greedy_sampling(8)).tokens, greedy({3, 1, 4}, 8));
}

TEST_F(LoadTest, RefusesPathsThatAreNoPackage) {
  ingot_package* package = nullptr;
  EXPECT_EQ(ingot_package_open("/nowhere.pt2", nullptr, &package), INGOT_BAD_INPUT);
  expect_contains(ingot_last_error(), "/nowhere.pt2");
  EXPECT_EQ(ingot_package_open(folder_.c_str(), nullptr, &package), INGOT_BAD_INPUT);
  EXPECT_NE(refusal(""), "");
}

size_t entries_of(const char* folder) {
  using Entries = std::filesystem::directory_iterator;
  return static_cast<size_t>(std::distance(Entries(folder), Entries()));
}

// How many threads there are when so many are left, or after some seconds.
size_t threads_when(size_t left) {
  const auto count = [] { return entries_of("/proc/self/task"); };
  soon([&] { return count() == left; }, std::chrono::seconds(5));
  return count();
}

// Code stays loaded for ever, but once: mappings and descriptors are as after one opening. No
// thread stays.
TEST_F(LoadTest, OpeningAgainTakesNothingMore) {
  const std::string path = write(toy_source().zip());
  const auto open_and_close = [&] {
    ingot_package* package = nullptr;
    ASSERT_EQ(ingot_package_open(path.c_str(), nullptr, &package), INGOT_OK) << ingot_last_error();
    const Package owned(package, ingot_package_close);
    const Package another = open();
    EXPECT_EQ(generate(new_session(owned), {1}, greedy_sampling(2)).tokens, greedy({1}, 2));
    EXPECT_EQ(generate(new_session(another), {2}, greedy_sampling(2)).tokens, greedy({2}, 2));
  };
  const auto code_mappings = [] {
    const std::string maps = read_file("/proc/self/maps");
    size_t count = 0;
    for (size_t at = 0; (at = maps.find("r-xp", at)) != std::string::npos; at++) count++;
    return count;
  };
  std::thread([] {}).join();  // with the first of a process comes a sanitizer's own
  const size_t threads = threads_when(1);
  open_and_close();
  const size_t files = entries_of("/proc/self/fd");
  const size_t code = code_mappings();
  for (int round = 0; round < 10; round++) open_and_close();
  EXPECT_EQ(entries_of("/proc/self/fd"), files);
  EXPECT_EQ(threads_when(threads), threads);
  EXPECT_EQ(code_mappings(), code);
}

TEST_F(LoadTest, RefusesNegativeOptions) {
  const std::string path = write(toy_source().zip());
  ingot_package* package = nullptr;
  ingot_options options = one_thread();
  options.threads = -1;
  EXPECT_EQ(ingot_package_open(path.c_str(), &options, &package), INGOT_BAD_INPUT);
  options = one_thread();
  options.kv_tokens = -1;
  EXPECT_EQ(ingot_package_open(path.c_str(), &options, &package), INGOT_BAD_INPUT);
}

TEST_F(LoadTest, RefusesOptionsThatNoMachineHas) {
  const std::string path = write(toy_source().zip());
  ingot_package* package = nullptr;
  ingot_options options = one_thread();
  options.threads = INT32_MAX;
  EXPECT_EQ(ingot_package_open(path.c_str(), &options, &package), INGOT_BAD_INPUT);
  options = one_thread();
  options.kv_tokens = INT64_MAX;
  EXPECT_EQ(ingot_package_open(path.c_str(), &options, &package), INGOT_BAD_INPUT);
}

// What a stranger wrote cannot steer the terminal.
TEST_F(LoadTest, ASentenceIsOneLineOfSomeLength) {
  PackageSource source = toy_source();
  source.manifest["variants"][0]["isa"] = "v9\n\x1b[2J" + std::string(5000, 'v');
  const std::string sentence = refusal(source.zip());
  expect_contains(sentence, "v9  [2Jvvv");
  EXPECT_LT(sentence.size(), 2100u);
}

// A package that is open keeps its file, whatever has its name.
TEST_F(LoadTest, AnOpenPackageOutlivesAFileThatReplacesIt) {
  const std::string path = write(toy_source().zip());
  ingot_package* opened = nullptr;
  ASSERT_EQ(ingot_package_open(path.c_str(), nullptr, &opened), INGOT_OK) << ingot_last_error();
  const Package package(opened, ingot_package_close);
  std::filesystem::rename(write("nothing"), path);
  EXPECT_EQ(generate(new_session(package), {1, 2}, greedy_sampling(5)).tokens, greedy({1, 2}, 5));
}

}  // namespace
}  // namespace ingot::test

// What a caller or a file may do wrong beyond single faults: each is refused, or harmless.
#include <sys/wait.h>

#include <limits>

#include "toy_package.h"

namespace ingot::test {
namespace {

using HostileTest = PackageTest;
using nlohmann::json;

// In a process of its own, so that a crash is seen as one: opens the package and, if it opens,
// generates. True if it opened.
bool opens(const std::string& path) {
  const pid_t child = fork();
  if (child == 0) {
    alarm(20);  // a hang is a failure too
    ingot_options options = one_thread();
    options.verify_weights = 1;
    ingot_package* package = nullptr;
    if (ingot_package_open(path.c_str(), &options, &package) != INGOT_OK) _exit(1);
    ingot_session* session = nullptr;
    if (ingot_session_create(package, &session) == INGOT_OK)
      generate(session, {1, 2}, greedy_sampling(2));
    const char* data = nullptr;
    size_t bytes = 0;
    ingot_package_token_bytes(package, 3, &data, &bytes);
    _exit(0);
  }
  int status = 0;
  waitpid(child, &status, 0);
  EXPECT_TRUE(WIFEXITED(status)) << "signal " << WTERMSIG(status);
  return WIFEXITED(status) && WEXITSTATUS(status) == 0;
}

// Calls `change` on each value inside, from the outermost, with its place.
void each(json& value, const std::string& place,
          const std::function<void(json&, const std::string&)>& change) {
  for (auto item = value.begin(); item != value.end(); ++item) {
    const std::string inner =
        place + "/" + (value.is_object() ? item.key() : std::to_string(item - value.begin()));
    change(*item, inner);
    if (item->is_structured()) each(*item, inner, change);
  }
}

// Any value in any place of the manifest.
TEST_F(HostileTest, EveryFieldOfTheManifestMayLie) {
  const json values = {
      nullptr,        0,   -1, int64_t{1} << 40, std::numeric_limits<uint64_t>::max(),
      1e300,          "x", "", json::array(),    json::array({-1}),
      json::object(), true};
  PackageSource source = toy_source();
  int opened = 0, refused = 0;
  each(source.manifest, "", [&](json& value, const std::string& place) {
    const json kept = value;
    for (const json& lie : values) {
      value = lie;
      SCOPED_TRACE(place + " = " + lie.dump());
      const std::string path = write(source.zip());
      (opens(path) ? opened : refused)++;
      std::filesystem::remove(path);
      value = kept;
    }
  });
  EXPECT_GT(refused, opened);
}

TEST_F(HostileTest, NamesThatAreNoPlainPaths) {
  for (const char* name : {"model/../../etc/passwd", "model//etc/passwd"}) {
    const PackageSource source = toy_source();
    std::vector<ZipEntry> all = {{name, "x"}};
    for (const auto& [entry, data] : source.entries) all.push_back({"model/" + entry, data});
    all.push_back({"model/ingot/manifest.json", source.manifest.dump()});
    EXPECT_NE(refusal(write_zip(all)), "") << name;
  }
  PackageSource source = toy_source();
  for (const char* name : {"../../../etc/passwd", "/etc/passwd", "ingot/nothing"}) {
    source.manifest["variants"][0]["entry"] = name;
    EXPECT_NE(refusal(source.zip()).find(name), std::string::npos);
  }
}

TEST_F(HostileTest, AManifestThatIsThereTwice) {
  const PackageSource source = toy_source();
  const std::string manifest = source.manifest.dump();
  EXPECT_NE(refusal(write_zip({{"model/ingot/manifest.json", manifest},
                               {"other/ingot/manifest.json", manifest}}))
                .find("twice"),
            std::string::npos);
}

// Code is refused before anything of it runs: what dlopen would run is not there to be reached.
TEST_F(HostileTest, CodeOfAnotherHashIsNeverOpened) {
  PackageSource source = toy_source();
  std::string& code = source.entries["ingot/variants/x86-64-v2/model.so"];
  for (const size_t at : {size_t{0}, size_t{16}, code.size() / 2, code.size() - 1}) {
    const char kept = code[at];
    code[at] = static_cast<char>(code[at] ^ 0x10);
    const std::string sentence = refusal(source.zip());
    EXPECT_NE(sentence.find("does not have the hash"), std::string::npos) << sentence;
    code[at] = kept;
  }
  code += '\0';
  EXPECT_NE(refusal(source.zip()).find("does not have the hash"), std::string::npos);
  source.manifest["entries"].erase("ingot/variants/x86-64-v2/model.so");
  EXPECT_NE(refusal(source.zip()).find("does not have the hash"), std::string::npos);
}

// One byte turned over anywhere: the package is refused, or does what it did.
TEST_F(HostileTest, AnyByteMayBeWrong) {
  const std::string zip = toy_source().zip();
  int opened = 0, tried = 0;
  // No multiple of what entries are aligned to; further where a sanitizer makes the code large.
  const size_t step = std::max<size_t>(151, (zip.size() / 300) | 1);
  for (size_t at = 0; at < zip.size(); at += step) {
    std::string damaged = zip;
    damaged[at] = static_cast<char>(damaged[at] ^ 0x20);
    const std::string path = write(damaged);
    SCOPED_TRACE(at);
    opened += opens(path);
    tried++;
    std::filesystem::remove(path);
  }
  EXPECT_LT(opened, tried);
}

// Cut at the borders of entries and their headers, and at bytes between.
TEST_F(HostileTest, AFileCutAnywhereIsRefused) {
  const std::string zip = toy_source().zip();
  std::vector<size_t> cuts;
  for (size_t at = zip.find("PK"); at != std::string::npos; at = zip.find("PK", at + 1))
    for (const size_t near : {at - 1, at, at + 1, at + 4, at + 30}) cuts.push_back(near);
  for (size_t at = 1; at < zip.size(); at += 997) cuts.push_back(at);
  for (const size_t at : cuts)
    if (at < zip.size()) {
      EXPECT_NE(refusal(zip.substr(0, at)), "") << at;
    }
}

TEST_F(HostileTest, NullArgumentsAreNamed) {
  const Package package = open();
  const Session session = new_session(package);
  const int64_t token = 1;
  const void* data = nullptr;
  const char* text = nullptr;
  size_t bytes = 0;
  char* manifest = nullptr;
  ingot_package* other = nullptr;
  ingot_results* results = nullptr;
  float logits[kVocab];
  const auto named = [](ingot_status status, const char* argument) {
    EXPECT_EQ(status, INGOT_BAD_INPUT) << argument;
    EXPECT_EQ(ingot_last_error(), std::string(argument) + " is NULL");
  };
  named(ingot_package_open(nullptr, nullptr, &other), "path");
  named(ingot_package_open("a.pt2", nullptr, nullptr), "package");
  named(ingot_read_manifest(nullptr, &manifest), "path");
  named(ingot_read_manifest("a.pt2", nullptr), "json");
  named(ingot_package_entry(nullptr, "a", &data, &bytes), "package");
  named(ingot_package_entry(package.get(), nullptr, &data, &bytes), "name");
  named(ingot_package_entry(package.get(), "a", nullptr, &bytes), "data");
  named(ingot_package_token_bytes(package.get(), 1, &text, nullptr), "bytes");
  named(ingot_session_create(nullptr, nullptr), "package");
  named(ingot_session_create(package.get(), nullptr), "session");
  named(ingot_session_generate(nullptr, &token, 1, nullptr, nullptr, nullptr, nullptr), "session");
  named(ingot_session_generate(session.get(), nullptr, 1, nullptr, nullptr, nullptr, nullptr),
        "tokens");
  named(ingot_session_logits(session.get(), &token, 1, nullptr), "logits");
  named(ingot_session_score(session.get(), &token, 1, nullptr, 1, nullptr), "targets");
  named(ingot_run(nullptr, nullptr, 0, &results), "package");
  named(ingot_run(package.get(), nullptr, 1, &results), "inputs");
  named(ingot_embed(package.get(), nullptr, nullptr, 1, logits), "tokens");
  named(ingot_results_get(nullptr, 0, nullptr), "results");
  named(ingot_trace_write(nullptr), "path");
  named(ingot_control_set(nullptr, "1"), "name");
  named(ingot_control_get(0, nullptr), "control");
  ingot_package_close(nullptr);
  ingot_session_close(nullptr);
  ingot_session_reset(nullptr);
  ingot_results_free(nullptr);
  ingot_free(nullptr);
  EXPECT_EQ(ingot_session_length(nullptr), 0);
  EXPECT_EQ(ingot_results_count(nullptr), 0u);
  EXPECT_EQ(ingot_package_manifest(nullptr), nullptr);
}

TEST_F(HostileTest, SizesThatCannotBe) {
  const Package package = open();
  const Session session = new_session(package);
  const int64_t token = 1;
  float logits[kVocab];
  const auto too_long = [](ingot_status status) {
    EXPECT_EQ(status, INGOT_BAD_INPUT);
    EXPECT_NE(std::string(ingot_last_error()).find("too long"), std::string::npos)
        << ingot_last_error();
  };
  const auto minus_one = static_cast<size_t>(-1);
  too_long(
      ingot_session_generate(session.get(), &token, minus_one, nullptr, nullptr, nullptr, nullptr));
  too_long(ingot_session_logits(session.get(), &token, minus_one, logits));
  ingot_sampling sampling = greedy_sampling(std::numeric_limits<int64_t>::max());
  too_long(generate(session, {1, 2}, sampling).status);
  sampling.max_new_tokens = 1;
  sampling.stop_count = 1;
  EXPECT_EQ(generate(session, {1, 2}, sampling).status, INGOT_BAD_INPUT);
  sampling = greedy_sampling(1);
  for (const size_t size : {size_t{0}, sizeof sampling + 8}) {
    sampling.struct_bytes = size;
    EXPECT_EQ(generate(session, {1, 2}, sampling).status, INGOT_BAD_INPUT) << size;
  }
  EXPECT_EQ(generate(session, {}, greedy_sampling(1)).status, INGOT_BAD_INPUT);
  EXPECT_EQ(generate(session, {1, 2}, greedy_sampling(1)).status, INGOT_OK);

  const std::string path = write(toy_source().zip());
  ingot_package* opened = nullptr;
  ingot_options options = one_thread();
  options.threads = 1 << 20;
  EXPECT_EQ(ingot_package_open(path.c_str(), &options, &opened), INGOT_BAD_INPUT);
  EXPECT_NE(std::string(ingot_last_error()).find("threads must be 0 to 1024"), std::string::npos);
}

}  // namespace
}  // namespace ingot::test

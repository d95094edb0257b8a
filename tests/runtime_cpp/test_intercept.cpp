// The controls at the border between generated code and the host, over the toy model.
#include <sys/resource.h>

#include <csignal>
#include <thread>

#include "toy_package.h"

namespace ingot::test {
namespace {

class InterceptTest : public PackageTest {
 protected:
  ~InterceptTest() override {
    ingot_controls_report();  // off, whatever a test left on
  }
  std::string file(const std::string& name) const { return (folder_ / name).string(); }
  void on(const std::string& name, const std::string& value) {
    ASSERT_EQ(ingot_control_set(name.c_str(), value.c_str()), INGOT_OK) << ingot_last_error();
  }
  std::string refused(const std::string& name, const std::string& value) {
    EXPECT_EQ(ingot_control_set(name.c_str(), value.c_str()), INGOT_BAD_INPUT);
    return ingot_last_error();
  }
  // One prompt after the other in a package of their own, which is closed at the end.
  void run(const std::vector<std::vector<int64_t>>& prompts, int64_t new_tokens = 3) {
    const Package package = open();
    for (const auto& prompt : prompts)
      EXPECT_EQ(generate(new_session(package), prompt, greedy_sampling(new_tokens)).status,
                INGOT_OK)
          << ingot_last_error();
  }
  std::string reported(const std::string& name) {
    EXPECT_EQ(ingot_controls_report(), INGOT_OK) << ingot_last_error();
    return read_file(file(name));
  }
};

bool has(const std::string& text, const std::string& part) {
  return text.find(part) != std::string::npos;
}
int64_t count(const std::string& text, const std::string& part) {
  int64_t found = 0;
  for (size_t at = text.find(part); at != std::string::npos; at = text.find(part, at + 1)) found++;
  return found;
}

TEST_F(InterceptTest, LeakCheckIsCleanOverManyGenerations) {
  on("leak-check", file("leaks.txt"));
  run(std::vector<std::vector<int64_t>>(50, {1, 2, 3}));
  const std::string text = reported("leaks.txt");
  EXPECT_TRUE(has(text, " 0 not freed")) << text;
  EXPECT_FALSE(has(text, "leak-check: 0 handles made")) << text;
  EXPECT_EQ(count(text, "\n"), 1) << text;
}

TEST_F(InterceptTest, LeakCheckNamesTheCallThatMadeWhatIsNotFreed) {
  on("leak-check", file("leaks.txt"));
  run({{1}, {kLeakingToken}, {kLeakingToken}, {2}});
  const std::string text = reported("leaks.txt");
  EXPECT_TRUE(has(text, " 2 not freed")) << text;
  EXPECT_TRUE(has(text,
                  "not freed: 2 of float32 [1, 1] by aoti_torch_empty_strided in "
                  "aoti_torch_cpu_embedding in a run"))
      << text;
}

TEST_F(InterceptTest, LeakCheckSaysThatAPackageIsOpen) {
  on("leak-check", file("leaks.txt"));
  const Package package = open();
  EXPECT_TRUE(has(reported("leaks.txt"), "float32 [1] by tensor_borrow, outside of any run"));
}

TEST_F(InterceptTest, CallLogHasRunsOpsTensorsAndKernels) {
  on("call-log", file("log.txt"));
  run({{1, 2}}, 2);
  const std::string text = reported("log.txt");
  EXPECT_TRUE(has(text, "run 1 begins, first input [2]")) << text;
  EXPECT_TRUE(has(text, "run 2 begins, first input [1]")) << text;
  EXPECT_TRUE(has(text,
                  "embedding@2(tokens=int64 [1], weight=float32 [1, 1, 64], embedding_dim=1) -> "
                  "(out0=float32 [1, 1])"))
      << text;
  EXPECT_EQ(count(text, "toy_kernel"), 2) << text;
  EXPECT_EQ(count(text, " -> 0x"), count(text, "(0x")) << text;
}

TEST_F(InterceptTest, HostTimingCountsEveryFunction) {
  on("host-timing", file("times.txt"));
  run({{1, 2}}, 4);
  const std::string text = reported("times.txt");
  for (const char* name : {"run", "embedding", "toy_kernel", "aoti_torch_empty_strided"})
    EXPECT_TRUE(has(text, std::string("  ") + name + "\n")) << text;
  EXPECT_TRUE(has(text, "\n         4 ")) << text;
}

TEST_F(InterceptTest, StatsFindTheFirstNan) {
  on("stats", file("stats.txt"));
  run({{1}, {kNanToken}, {2}}, 2);
  const std::string text = reported("stats.txt");
  EXPECT_TRUE(has(text, "embedding@1 output out0 float32 [1, 1]: 0.5 to 0.5, 0 NaN, 0 infinite"))
      << text;
  // The table, an input, has the NaN from the beginning; nothing of ours made it.
  EXPECT_TRUE(has(text, "the first NaN: input weight of embedding@1 in run 1, 1 of 64 elements"))
      << text;
  EXPECT_TRUE(has(text, "embedding@3 output out0 float32 [1, 1]: inf to -inf, 1 NaN, 0 infinite"))
      << text;
}

TEST_F(InterceptTest, NullKernelsComputeNothing) {
  on("null-kernels", file("null.txt"));
  on("stats", file("stats.txt"));
  run({{1}}, 3);
  const std::string text = reported("null.txt");
  EXPECT_TRUE(has(text, "null-kernels, ms:        3 ")) << text;
  EXPECT_TRUE(has(text, "  [1]\n")) << text;
  EXPECT_TRUE(has(read_file(file("stats.txt")), "out0 float32 [1, 1]: 0 to 0, 0 NaN"));
}

TEST_F(InterceptTest, DumpWritesTheNamedCalls) {
  on("dump-to", file("dump"));
  on("dump", "embedding@2-3:after");
  run({{1}}, 5);
  EXPECT_EQ(ingot_controls_report(), INGOT_OK);
  std::vector<std::string> names;
  for (const auto& entry : std::filesystem::directory_iterator(folder_ / "dump"))
    names.push_back(entry.path().filename());
  std::sort(names.begin(), names.end());
  EXPECT_EQ(names, (std::vector<std::string>{"embedding-2.after.npz", "embedding-3.after.npz"}));
  EXPECT_TRUE(has(read_file(folder_ / "dump" / names[0]), "'descr': '<f4'"));
}

TEST_F(InterceptTest, CaptureOfACallThatNeverCameIsSaid) {
  on("capture-to", file("call.npz"));
  on("capture", "embedding@9");
  run({{1}}, 2);
  EXPECT_EQ(ingot_controls_report(), INGOT_BAD_INPUT);
  EXPECT_TRUE(has(ingot_last_error(), "no call embedding@9; the op was called 2 times"));
  EXPECT_FALSE(std::filesystem::exists(file("call.npz")));
}

// While it lives, writing a file beyond so many bytes fails.
class NoMoreThan {
 public:
  explicit NoMoreThan(rlim_t bytes) : handler_(std::signal(SIGXFSZ, SIG_IGN)) {
    getrlimit(RLIMIT_FSIZE, &before_);
    const rlimit limit{bytes, before_.rlim_max};
    setrlimit(RLIMIT_FSIZE, &limit);
  }
  ~NoMoreThan() {
    setrlimit(RLIMIT_FSIZE, &before_);
    std::signal(SIGXFSZ, handler_);
  }

 private:
  rlimit before_{};
  void (*handler_)(int);
};

TEST_F(InterceptTest, AFullDiskLeavesNoFileAndTheRunGoesOn) {
  if (!std::filesystem::exists("/dev/full")) GTEST_SKIP();
  std::filesystem::create_directory(file("dump"));
  std::filesystem::create_symlink("/dev/full", file("log.txt"));
  on("call-log", file("log.txt"));
  on("dump-to", file("dump"));
  on("dump", "embedding:after");
  {
    const Package package = open();
    const Session session = new_session(package);
    const NoMoreThan limit(64);
    EXPECT_EQ(generate(session, {1}, greedy_sampling(2)).status, INGOT_OK) << ingot_last_error();
    EXPECT_EQ(ingot_controls_report(), INGOT_BAD_INPUT);
  }
  const std::string sentence = ingot_last_error();
  EXPECT_TRUE(has(sentence, "could not write all of " + file("log.txt"))) << sentence;
  EXPECT_TRUE(has(sentence, "cannot write " + file("dump/embedding-1.after.npz"))) << sentence;
  EXPECT_TRUE(std::filesystem::is_empty(file("dump")));
}

TEST_F(InterceptTest, RefusesWhatItDoesNotKnow) {
  EXPECT_TRUE(has(refused("leaks", "1"), "there is no control 'leaks'; there are call-log"));
  EXPECT_TRUE(has(refused("dump", "embeding"), "dump=embeding names no calls"));
  for (const char* value : {"*", "embedding@0", "embedding@5-4", "embedding@1-2", "embedding:after",
                            "embedding@", "embedding@1x"})
    EXPECT_TRUE(has(refused("capture", value), "names no calls")) << value;
  EXPECT_TRUE(has(refused("call-log", "/nowhere/log.txt"), "cannot write /nowhere/log.txt"));
  on("dump-to", "/nowhere/dump");
  EXPECT_TRUE(has(refused("dump", "embedding"), "cannot write to /nowhere/dump"));
}

TEST_F(InterceptTest, OffAgainIsOff) {
  on("call-log", file("log.txt"));
  on("call-log", "");
  run({{1}});
  EXPECT_EQ(ingot_controls_report(), INGOT_OK);
  EXPECT_EQ(read_file(file("log.txt")), "");
}

TEST_F(InterceptTest, SeesSeveralPackagesAtOnce) {
  on("leak-check", file("leaks.txt"));
  on("host-timing", file("times.txt"));
  std::vector<Package> packages;
  for (int i = 0; i < 3; i++) packages.push_back(open());
  std::vector<std::thread> callers;
  for (const Package& package : packages)
    callers.emplace_back([&] {
      for (int64_t i = 0; i < 20; i++) generate(new_session(package), {i % 90}, greedy_sampling(4));
    });
  for (std::thread& caller : callers) caller.join();
  packages.clear();
  EXPECT_TRUE(has(reported("leaks.txt"), " 0 not freed"));
  EXPECT_TRUE(has(read_file(file("times.txt")), "\n       240 "));
}

TEST_F(InterceptTest, TheTableIsWhole) {
  ingot_control control;
  size_t rows = 0;
  for (; ingot_control_get(rows, &control) == INGOT_OK; rows++) {
    EXPECT_EQ(std::string(control.variable).substr(0, 6), "INGOT_");
    EXPECT_FALSE(std::string(control.meaning).empty());
  }
  EXPECT_EQ(rows, 9u);
}

}  // namespace
}  // namespace ingot::test

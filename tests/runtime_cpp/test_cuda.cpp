// Packages for a GPU, over the fake driver: what a decoder answers, and how it gets there.
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <thread>

#include "cuda_package.h"

namespace ingot::test {
namespace {

using CudaTest = GpuTest;

TEST_F(CudaTest, AnswersAsTheModelDoes) {
  const Package package = open(gpu_source());
  EXPECT_STREQ(ingot_package_variant(package.get()), "sm_90");
  const Session session = new_session(package);
  for (const int64_t length : {1, 2, 15, 16, 17, 255, 300}) {
    ingot_session_reset(session.get());
    const std::vector<int64_t> prompt = prompt_of(length);
    EXPECT_EQ(generate(session, prompt, greedy_sampling(40)).tokens, greedy(prompt, 40));
  }
}

TEST_F(CudaTest, DecodeStepsAreOneLaunchFromTheThirdOn) {
  const Package package = open(gpu_source());
  const Session session = new_session(package);
  const std::vector<int64_t> prompt = prompt_of(5);
  generate(session, prompt, greedy_sampling(3));  // a prompt, a step as it is, one that is captured
  EXPECT_EQ(fake_cuda_counts().captures, 1);
  const fake_cuda::Counts before = fake_cuda_counts();
  const Generated made = generate(session, {7}, greedy_sampling(20));
  const fake_cuda::Counts after = fake_cuda_counts();
  EXPECT_EQ(made.tokens.size(), 20u);
  // The pending token and the new one are a prompt of two; the other 19 are replays.
  EXPECT_EQ(after.graph_launches - before.graph_launches, 19);
  EXPECT_EQ(after.kernel_launches - before.kernel_launches, 2);
  EXPECT_EQ(after.captures, before.captures);
  // A copy each way a step.
  EXPECT_EQ(after.copies_to_device - before.copies_to_device, 20);
  EXPECT_EQ(after.copies_to_host - before.copies_to_host, 20);
}

TEST_F(CudaTest, ManySessionsAtOnceInBucketsOfManySizes) {
  const Package package = open(gpu_source());
  std::vector<std::thread> callers;
  for (int64_t caller = 0; caller < 7; caller++)
    callers.emplace_back([&, caller] {
      const Session session = new_session(package);
      // Around 256 tokens, where a bucket's block table ends.
      const std::vector<int64_t> prompt = prompt_of(200 + 20 * caller, caller);
      const int64_t count = 30 + 10 * caller;
      EXPECT_EQ(generate(session, prompt, greedy_sampling(count)).tokens, greedy(prompt, count));
    });
  for (std::thread& caller : callers) caller.join();
  EXPECT_GT(fake_cuda_counts().graph_launches, 0);
}

TEST_F(CudaTest, LogitsAndScoresAreThoseOfTheRowsWanted) {
  const Package package = open(gpu_source());
  const Session session = new_session(package);
  const std::vector<int64_t> tokens = prompt_of(70);
  std::vector<float> logits(tokens.size() * kVocab);
  ASSERT_EQ(ingot_session_logits(session.get(), tokens.data(), tokens.size(), logits.data()),
            INGOT_OK)
      << ingot_last_error();
  for (size_t t = 0; t < tokens.size(); t++) {
    const uint64_t state = hash({tokens.data(), t + 1});
    for (int64_t v = 0; v < kVocab; v++)
      ASSERT_EQ(logits[t * kVocab + v], logit(state, v)) << t << " " << v;
  }
}

TEST_F(CudaTest, WhatCannotBeCapturedRunsAsItIs) {
  set({.failing_capture = 1});
  const Package package = open(gpu_source());
  const std::vector<int64_t> prompt = prompt_of(9);
  EXPECT_EQ(generate(new_session(package), prompt, greedy_sampling(12)).tokens, greedy(prompt, 12));
  EXPECT_EQ(fake_cuda_counts().captures, 1);
  EXPECT_EQ(fake_cuda_counts().graph_launches, 0);
}

TEST_F(CudaTest, ATraceHasTheCallsOfEachStepWithTheGpusTimes) {
  const Package package = open(gpu_source());
  const Session session = new_session(package);
  generate(session, prompt_of(3), greedy_sampling(5));
  ingot_trace_start();
  generate(session, {4}, greedy_sampling(6));
  const std::string path = (folder_ / "trace.json").string();
  ASSERT_EQ(ingot_trace_write(path.c_str()), INGOT_OK) << ingot_last_error();
  std::vector<nlohmann::json> steps, kernels;
  const nlohmann::json trace = nlohmann::json::parse(read_file(path));
  for (const auto& event : trace.at("traceEvents")) {
    if (event.at("name") == "step") steps.push_back(event);
    if (event.value("cat", "") == "kernel") kernels.push_back(event);
  }
  ASSERT_EQ(steps.size(), 6u);
  ASSERT_EQ(kernels.size(), 12u);  // though these steps had a graph
  double end = 0;
  for (size_t i = 0; i < kernels.size(); i++) {
    const nlohmann::json &step = steps[i / 2], &kernel = kernels[i];
    EXPECT_EQ(kernel.at("name"), i % 2 ? "toy_logits" : "toy_write");
    EXPECT_EQ(kernel.at("tid"), step.at("tid"));
    // Against other times they may be off: in each step the two clocks meet at one event's call.
    const double begin = kernel.at("ts"), duration = kernel.at("dur");
    if (i % 2) {
      EXPECT_GE(begin, end);  // of one step
    }
    EXPECT_LE(duration, step.at("dur").get<double>());
    end = begin + duration - 1;  // us: an event's time is a float32
  }
}

// The decoder's graph as arrays see it: two tokens of one sequence, and a cache of two blocks.
TEST_F(CudaTest, AModuleTakesAndGivesArraysOfTheCpu) {
  PackageSource source = gpu_source();
  source.manifest["model"]["kind"] = "module";
  const Package package = open(source);
  std::vector<int64_t> tokens = {3, 4}, positions = {0, 1}, slots = {16, 17}, starts = {0, 2},
                       lengths = {2}, table = {1}, rows = {1};
  std::vector<char> cache(2 * kBytesPerBlock);
  const int64_t two = 2, one = 1, matrix[] = {1, 1}, blocks[] = {2, kBytesPerBlock};
  const ingot_array inputs[] = {
      {tokens.data(), INGOT_INT64, 1, &two},  {positions.data(), INGOT_INT64, 1, &two},
      {slots.data(), INGOT_INT64, 1, &two},   {starts.data(), INGOT_INT64, 1, &two},
      {lengths.data(), INGOT_INT64, 1, &one}, {lengths.data(), INGOT_INT64, 1, &one},
      {table.data(), INGOT_INT64, 2, matrix}, {rows.data(), INGOT_INT64, 1, &one},
      {cache.data(), INGOT_UINT8, 2, blocks}, {cache.data(), INGOT_UINT8, 2, blocks}};
  ingot_results *first = nullptr, *second = nullptr;
  ASSERT_EQ(ingot_run(package.get(), inputs, 10, &first), INGOT_OK) << ingot_last_error();
  tokens[1] = 5;
  ASSERT_EQ(ingot_run(package.get(), inputs, 10, &second), INGOT_OK) << ingot_last_error();
  const auto expect_logits = [](ingot_results* results, const std::vector<int64_t>& history) {
    ingot_array array = {};
    ASSERT_EQ(ingot_results_get(results, 0, &array), INGOT_OK) << ingot_last_error();
    ASSERT_EQ(array.ndim, 2);
    ASSERT_EQ(array.shape[1], kVocab);
    for (int64_t v = 0; v < kVocab; v++)
      ASSERT_EQ(static_cast<const float*>(array.data)[v], logit(hash(history), v));
    ingot_results_free(results);
  };
  expect_logits(first, {3, 4});  // lasts beyond the next run
  expect_logits(second, {3, 5});
}

TEST_F(CudaTest, TwoPackagesShareTheGpu) {
  const Package one = open(gpu_source()), other = open(gpu_source());
  const std::vector<int64_t> prompt = prompt_of(9);
  EXPECT_EQ(generate(new_session(one), prompt, greedy_sampling(9)).tokens, greedy(prompt, 9));
  EXPECT_EQ(generate(new_session(other), prompt, greedy_sampling(9)).tokens, greedy(prompt, 9));
}

TEST_F(CudaTest, AFailingKernelIsOneSentence) {
  const Package package = open(gpu_source());
  EXPECT_EQ(generate(new_session(package), {1, kFailingToken}, greedy_sampling(1)).status,
            INGOT_FAILED);
  EXPECT_STREQ(ingot_last_error(),
               "a step failed on the GPU: unspecified launch failure (CUDA error 719)");
  set({});  // a real context would be lost; this one is to close its package
}

TEST_F(CudaTest, GpusAreDescribed) {
  char* text = nullptr;
  ASSERT_EQ(ingot_gpus(&text), INGOT_OK) << ingot_last_error();
  const nlohmann::json found = nlohmann::json::parse(text);
  ingot_free(text);
  EXPECT_EQ(found.at("driver"), "13.0");
  ASSERT_EQ(found.at("devices").size(), 1u);
  EXPECT_EQ(found.at("devices")[0].at("name"), "Fake GPU");
  EXPECT_EQ(found.at("devices")[0].at("architecture"), "sm_90");
}

TEST_F(CudaTest, TheBestVariantThatRunsIsTaken) {
  set({.capability = 89});
  PackageSource source = gpu_source();
  source.manifest["variants"] = nlohmann::json::array();
  for (const char* name : {"sm_90a", "sm_90", "sm_86", "sm_80"}) {
    nlohmann::json variant = gpu_source().manifest["variants"][0];
    variant["name"] = variant["gpu_architecture"] = name;
    source.manifest["variants"].push_back(variant);
  }
  EXPECT_STREQ(ingot_package_variant(open(source).get()), "sm_86");
}

TEST_F(CudaTest, AnotherArchitectureIsRefused) {
  set({.capability = 75});
  const std::string sentence = refusal(gpu_source().zip());
  EXPECT_NE(sentence.find(".pt2 is for sm_90, this GPU (Fake GPU) is sm_75; export it again with "
                          "--cuda-arch 75"),
            std::string::npos)
      << sentence;
}

#ifdef INGOT_CUDA  // else there are no ops that would be too new
TEST_F(CudaTest, ADriverThatIsTooOldIsRefused) {
  set({.version = 12080});
  const std::string sentence = refusal(gpu_source().zip());
  EXPECT_NE(sentence.find("driver knows CUDA 12.8, and Ingot's kernels are of CUDA 1"),
            std::string::npos)
      << sentence;
}
#endif

TEST_F(CudaTest, CopyWeightsIsRefused) {
  ingot_options options = one_thread();
  options.copy_weights = 1;
  ingot_package* package = nullptr;
  EXPECT_EQ(ingot_package_open(write(gpu_source().zip()).c_str(), &options, &package),
            INGOT_BAD_INPUT);
  EXPECT_NE(std::string(ingot_last_error()).find("copy_weights is for packages of the CPU"),
            std::string::npos);
}

TEST_F(CudaTest, ControlsThatReadTensorsAreRefused) {
  ASSERT_EQ(ingot_control_set("stats", (folder_ / "stats.txt").c_str()), INGOT_OK);
  ingot_package* package = nullptr;
  EXPECT_EQ(ingot_package_open(write(gpu_source().zip()).c_str(), nullptr, &package),
            INGOT_BAD_INPUT);
  EXPECT_NE(std::string(ingot_last_error()).find("read tensors of the CPU"), std::string::npos)
      << ingot_last_error();
  ingot_controls_report();
}

TEST_F(CudaTest, AForkedProcessIsToldSo) {
  char* gpus = nullptr;
  ASSERT_EQ(ingot_gpus(&gpus), INGOT_OK) << ingot_last_error();
  ingot_free(gpus);
  const std::string path = write(gpu_source().zip());
  const pid_t child = fork();
  if (child == 0) {
    ingot_package* package = nullptr;
    const bool refused = ingot_package_open(path.c_str(), nullptr, &package) == INGOT_BAD_INPUT;
    const std::string sentence = ingot_last_error();
    std::_Exit(refused && sentence.find("forked from one that uses it") != std::string::npos);
  }
  int status = 0;
  ASSERT_EQ(waitpid(child, &status, 0), child);
  EXPECT_EQ(WEXITSTATUS(status), 1);
}

TEST_F(CudaTest, WithoutAGpuThereIsASentence) {
  testing::FLAGS_gtest_death_test_style = "threadsafe";  // a new process: a driver starts once
  EXPECT_EXIT(
      {
        set({.devices = 0});
        const std::string sentence = refusal(gpu_source().zip());
        std::fprintf(stderr, "%s\n", sentence.c_str());
        std::filesystem::remove_all(folder_);  // the new process's own
        std::_Exit(0);
      },
      testing::ExitedWithCode(0), "is for a GPU: the CUDA driver finds no GPU");
}

}  // namespace
}  // namespace ingot::test

// A GPU's memory: weights on their way to it, its end, and what is left after failures.
#include "cuda_package.h"

namespace ingot::test {
namespace {

using CudaMemoryTest = GpuTest;

struct Opened {
  ingot_status status;
  std::string sentence;
};

TEST_F(CudaMemoryTest, WeightsArriveWholeInPartsWithProgress) {
  set({.memory = 128 << 20});
  PackageSource source = gpu_source();
  std::string weights(40 << 20, 'x');  // three parts
  const size_t offset = weights.size() - 64;
  std::memcpy(weights.data() + offset, &kSalt, sizeof kSalt);
  source.entries["ingot/weights.bin"] = weights;
  source.manifest["constants"]["toy.salt"]["offset"] = offset;
  source.hash_entries();
  std::vector<uint64_t> progress;
  ingot_options options = one_thread();
  options.kv_tokens = 640;
  options.progress_user = &progress;
  options.progress = [](uint64_t done, uint64_t total, void* user) {
    EXPECT_EQ(total, uint64_t{40} << 20);
    static_cast<std::vector<uint64_t>*>(user)->push_back(done);
  };
  ingot_package* opened = nullptr;
  ASSERT_EQ(ingot_package_open(write(source.zip()).c_str(), &options, &opened), INGOT_OK)
      << ingot_last_error();
  const Package package(opened, ingot_package_close);
  EXPECT_EQ(progress, (std::vector<uint64_t>{16 << 20, 32 << 20, 40 << 20}));
  const std::vector<int64_t> prompt = prompt_of(20);
  const Session session = new_session(package);
  EXPECT_EQ(generate(session, prompt, greedy_sampling(5)).tokens, greedy(prompt, 5));
  std::vector<float> logits(kVocab);  // which the salt is in
  const int64_t token = 3;
  ingot_session_reset(session.get());
  ASSERT_EQ(ingot_session_logits(session.get(), &token, 1, logits.data()), INGOT_OK);
  EXPECT_EQ(logits[0], logit(hash({&token, 1}), 0));
}

// Each allocation of opening fails in turn.
TEST_F(CudaMemoryTest, OpeningWithoutMemoryIsOneSentenceAndLeavesNothing) {
  const std::string path = write(gpu_source().zip());
  int failures = 0;
  for (int64_t n = 1;; n++) {
    set({.failing_allocation = n});
    ingot_package* package = nullptr;
    const ingot_status status = ingot_package_open(path.c_str(), nullptr, &package);
    ingot_package_close(package);
    if (status == INGOT_OK) break;
    failures++;
    EXPECT_EQ(status, INGOT_NO_SPACE);
    EXPECT_NE(std::string(ingot_last_error()).find("out of memory: allocating"), std::string::npos)
        << ingot_last_error();
    EXPECT_EQ(fake_cuda_counts().allocations, 0);
    EXPECT_EQ(fake_cuda_counts().pinned, 0);
  }
  EXPECT_EQ(failures, 2);  // the weights, the KV cache
}

// Whatever failed the `n`-th time.
void expect_answer(const Session& session, const std::vector<int64_t>& prompt, int64_t n) {
  const Generated made = generate(session, prompt, greedy_sampling(8));
  EXPECT_EQ(made.status, INGOT_OK) << n << ": " << ingot_last_error();
  EXPECT_EQ(made.tokens, greedy(prompt, 8)) << n;
}

// Each allocation of generating fails in turn, once: the step is tried again with what the pool can
// give back.
TEST_F(CudaMemoryTest, AStepWithoutMemoryIsTriedAgain) {
  const std::vector<int64_t> prompt = prompt_of(300);
  for (int64_t n = 1; n <= 7; n++) {  // the seventh is never asked for
    set({});
    const Package package = open(gpu_source());
    const Session session = new_session(package);
    set({.failing_allocation = n});
    expect_answer(session, prompt, n);
  }
}

// As where an op finds no memory of its own: the runtime is told that the step failed, not why.
TEST_F(CudaMemoryTest, AStepThatFailsIsTriedAgain) {
  const std::vector<int64_t> prompt = prompt_of(30);
  for (int64_t n = 1; n <= 6; n++) {  // of a prompt, a step as it is, one that is captured
    const Package package = open(gpu_source());
    const Session session = new_session(package);
    set({.failing_launch = n});
    expect_answer(session, prompt, n);
  }
}

TEST_F(CudaMemoryTest, AStepThatNeverFitsIsOneSentenceAndOthersGoOn) {
  set({.memory = 1 << 20});  // of which a step of 600 tokens wants 2.4 MB
  const Package package = open(gpu_source(), 640);
  const Session session = new_session(package);
  EXPECT_EQ(generate(session, prompt_of(600), greedy_sampling(1)).status, INGOT_NO_SPACE);
  EXPECT_NE(std::string(ingot_last_error()).find("the GPU's memory is full"), std::string::npos)
      << ingot_last_error();
  const std::vector<int64_t> prompt = prompt_of(50);
  EXPECT_EQ(generate(session, prompt, greedy_sampling(20)).tokens, greedy(prompt, 20));
}

// As where a kernel cannot be loaded, or an op takes a workspace: the step failed, and why is
// asked.
TEST_F(CudaMemoryTest, LaunchesThatFindNoMemoryAreThatSentenceToo) {
  const Package package = open(gpu_source());
  const Session session = new_session(package);
  const std::vector<int64_t> prompt = prompt_of(9);
  set({.failing_launch = -1});
  EXPECT_EQ(generate(session, prompt, greedy_sampling(1)).status, INGOT_NO_SPACE);
  EXPECT_NE(std::string(ingot_last_error()).find("the GPU's memory is full"), std::string::npos)
      << ingot_last_error();
  set({});
  ingot_session_reset(session.get());
  EXPECT_EQ(generate(session, prompt, greedy_sampling(20)).tokens, greedy(prompt, 20));
}

TEST_F(CudaMemoryTest, TheCacheTakesNoMoreThanThereIsRoomFor) {
  set({.memory = 64 << 10});  // of which eight of the longest sequences would take 82 KB
  const Package package = open(gpu_source());
  const Session session = new_session(package);
  const std::vector<int64_t> prompt = prompt_of(2);
  EXPECT_EQ(generate(session, prompt, greedy_sampling(1)).tokens, greedy(prompt, 1));
}

TEST_F(CudaMemoryTest, ACopyThatFailsIsOneSentence) {
  set({.failing_copy = 1});
  ingot_package* package = nullptr;
  EXPECT_EQ(ingot_package_open(write(gpu_source().zip()).c_str(), nullptr, &package), INGOT_FAILED);
  EXPECT_STREQ(ingot_last_error(),
               "copying to the GPU failed on the GPU: an illegal memory access was encountered "
               "(CUDA error 700)");
}

}  // namespace
}  // namespace ingot::test

// Several packages in one process: they share a step thread, and nothing else.
#include <set>
#include <thread>

#include "toy_package.h"

namespace ingot::test {
namespace {

class PackagesTest : public PackageTest {
 protected:
  // Its team takes all cores and more, so that there is room for one.
  Package open_wide(const PackageSource& source = toy_source()) {
    return open(source, 0, static_cast<int32_t>(std::thread::hardware_concurrency()) + 1);
  }
};

void expect_answer(const Package& package, const std::vector<int64_t>& prompt, int64_t count) {
  EXPECT_EQ(generate(new_session(package), prompt, greedy_sampling(count)).tokens,
            greedy(prompt, count));
}

TEST_F(PackagesTest, StepsAreTakenOnOneThread) {
  const Package one = open_wide(), two = open_wide();
  ingot_trace_start();
  for (int round = 0; round < 3; round++)
    for (const Package* package : {&one, &two}) expect_answer(*package, prompt_of(20, round), 5);
  const std::string path = (folder_ / "trace.json").string();
  ASSERT_EQ(ingot_trace_write(path.c_str()), INGOT_OK) << ingot_last_error();
  const nlohmann::json trace = nlohmann::json::parse(read_file(path));
  std::set<int64_t> threads;
  int steps = 0;
  for (const nlohmann::json& event : trace.at("traceEvents")) {
    if (event.at("name") != "step") continue;
    threads.insert(event.at("tid").get<int64_t>());
    steps++;
  }
  EXPECT_EQ(steps, 30);
  EXPECT_EQ(threads.size(), 1u);
}

TEST_F(PackagesTest, CallersOfEachAtOnceGetTheirAnswers) {
  const Package one = open_wide(), two = open_wide();
  std::vector<std::thread> callers;
  for (int64_t caller = 0; caller < 6; caller++)
    callers.emplace_back([&, caller] {
      for (int64_t round = 0; round < 8; round++)
        expect_answer(caller % 2 ? one : two, prompt_of(1 + caller * 57 % 400, round), 20);
    });
  for (std::thread& caller : callers) caller.join();
}

// A long answer of one does not keep the other waiting: they take turns step by step.
TEST_F(PackagesTest, NeitherWaitsForTheEndOfTheOthersCall) {
  const Package one = open_wide(), two = open_wide();
  const Session session = new_session(one);
  bool answered = false;
  const Generated made = generate(session, {1}, greedy_sampling(100), [&](int64_t) {
    if (!answered) expect_answer(two, {2, 3}, 5);
    return answered = true;
  });
  EXPECT_EQ(made.tokens, greedy({1}, 100));
}

TEST_F(PackagesTest, OnesFailureLeavesTheOther) {
  const Package one = open_wide(), two = open_wide();
  std::thread failing([&] {
    for (int round = 0; round < 10; round++)
      EXPECT_EQ(generate(new_session(one), {1, kFailingToken}, greedy_sampling(1)).status,
                INGOT_FAILED);
  });
  for (int round = 0; round < 10; round++) expect_answer(two, prompt_of(30, round), 20);
  failing.join();
}

TEST_F(PackagesTest, ClosingOneLeavesTheOther) {
  const Package kept = open_wide();
  std::thread busy([&] { expect_answer(kept, {4}, 600); });
  for (int round = 0; round < 5; round++) {
    const Package other = open_wide(salted_source(2));
    const int64_t token = 3;
    std::vector<float> logits(kVocab);
    ASSERT_EQ(ingot_session_logits(new_session(other).get(), &token, 1, logits.data()), INGOT_OK);
    EXPECT_FLOAT_EQ(logits[7], logit(hash({&token, 1}), 7) + 2 - kSalt);
  }
  busy.join();
  expect_answer(kept, {5, 6}, 10);
}

TEST_F(PackagesTest, AThreadMayCloseWhatAnotherOpened) {
  Package first(nullptr, ingot_package_close);
  std::thread([&] { first = open_wide(); }).join();
  const Package second = open_wide();
  expect_answer(first, {1}, 5);
  std::thread([&] { first.reset(); }).join();
  expect_answer(second, {2}, 5);
}

}  // namespace
}  // namespace ingot::test

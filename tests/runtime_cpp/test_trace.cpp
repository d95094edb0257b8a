// Traces, and the read benchmark.
#include <algorithm>
#include <atomic>
#include <chrono>
#include <thread>
#include <utility>

#include "barriers.h"
#include "toy_package.h"

namespace ingot::test {
namespace {

using nlohmann::json;

class TraceTest : public PackageTest {
 protected:
  json document() {
    const std::string path = (folder_ / "trace.json").string();
    EXPECT_EQ(ingot_trace_write(path.c_str()), INGOT_OK) << ingot_last_error();
    return json::parse(read_file(path));
  }
  // What took time, without counters and names.
  std::vector<json> written() {
    std::vector<json> spans;
    const json trace = document();
    for (const json& event : trace.at("traceEvents")) {
      if (event.at("ph") == "X") spans.push_back(event);
    }
    return spans;
  }
};

std::vector<json> named(const std::vector<json>& events, const std::string& name) {
  std::vector<json> found;
  for (const json& event : events) {
    if (event.at("name") == name) found.push_back(event);
  }
  return found;
}

TEST_F(TraceTest, HasOneEventPerStepAndPerKernelOfIt) {
  const Package package = open();
  const Session session = new_session(package);
  generate(session, {1}, greedy_sampling(3));  // before: not recorded
  ingot_trace_start();
  generate(session, prompt_of(300), greedy_sampling(5));
  const std::vector<json> events = written();
  // The answer's last token and the prompt are fed in two chunks, then four tokens one by one.
  const std::vector<json> steps = named(events, "step"), kernels = named(events, "toy_kernel");
  ASSERT_EQ(steps.size(), 6u);
  EXPECT_EQ(kernels.size(), steps.size());
  EXPECT_EQ(steps[0].at("args").at("tokens"), 256);
  EXPECT_EQ(steps[1].at("args").at("tokens"), 45);
  EXPECT_EQ(steps[5].at("args").at("tokens"), 1);
  for (size_t i = 0; i < steps.size(); i++) {
    EXPECT_EQ(steps[i].at("ph"), "X");
    EXPECT_EQ(steps[i].at("tid"), kernels[i].at("tid"));
    EXPECT_LE(steps[i].at("ts").get<double>(), kernels[i].at("ts").get<double>());
    EXPECT_GE(steps[i].at("dur").get<double>(), kernels[i].at("dur").get<double>());
  }
}

TEST_F(TraceTest, SaysWhatAStepComputes) {
  const Package package = open();
  const Session session = new_session(package);
  ingot_trace_start();
  generate(session, prompt_of(20), greedy_sampling(3));
  const std::vector<json> steps = named(written(), "step");
  ASSERT_EQ(steps.size(), 3u);
  const json first = {{"step", 0}, {"phase", "prefill"}, {"tokens", 20},  {"sequences", 1},
                      {"rows", 1}, {"blocks", 2},        {"context", 20}, {"pairs", 210}};
  const json last = {{"step", 2}, {"phase", "decode"}, {"tokens", 1},   {"sequences", 1},
                     {"rows", 1}, {"blocks", 2},       {"context", 22}, {"pairs", 22}};
  EXPECT_EQ(steps[0].at("args"), first);
  EXPECT_EQ(steps[2].at("args"), last);
}

TEST_F(TraceTest, NothingOnAThreadOverlapsInsideARequest) {
  const Package package = open();
  ingot_trace_start();
  generate(new_session(package), prompt_of(20), greedy_sampling(50));
  std::vector<json> events = written();
  const json request = named(events, "generate").at(0);
  const double end = request.at("ts").get<double>() + request.at("dur").get<double>();
  EXPECT_EQ(request.at("args").at("prompt_tokens"), 20);
  EXPECT_EQ(request.at("args").at("new_tokens"), 50);
  EXPECT_GT(request.at("args").at("first_token_us"), request.at("ts"));
  EXPECT_LT(request.at("args").at("first_token_us"), end);
  std::erase_if(events, [](const json& e) { return e["cat"] == "step" || e["cat"] == "request"; });
  std::ranges::sort(events, {}, [](const json& e) { return e.at("ts").get<double>(); });
  for (size_t i = 1; i < events.size(); i++) {
    const json &before = events[i - 1], &event = events[i];
    EXPECT_EQ(before.at("tid"), event.at("tid"));
    EXPECT_NE(request.at("tid"), event.at("tid"));
    EXPECT_LE(before.at("ts").get<double>() + before.at("dur").get<double>(),
              event.at("ts").get<double>() + 0.01);  // microseconds; their fraction is rounded
  }
  EXPECT_EQ(named(events, "sample").size(), 50u);
}

TEST_F(TraceTest, LeavesOutARequestThatBeganBefore) {
  const Package package = open();
  bool started = false;
  generate(new_session(package), {1}, greedy_sampling(5), [&](int64_t) {
    if (!std::exchange(started, true)) ingot_trace_start();
    return true;
  });
  EXPECT_TRUE(named(written(), "generate").empty());
}

TEST_F(TraceTest, NamesTheModelAndCountsItsCache) {
  const Package package = open();
  ingot_trace_start();
  generate(new_session(package), prompt_of(20), greedy_sampling(3));
  const json trace = document();
  EXPECT_EQ(trace.at("ingot").at("engine"), "ingot");
  EXPECT_EQ(trace.at("ingot").at("model").at("vocab_size"), kVocab);
  std::vector<json> cache, threads;
  double resident = 0;
  for (const json& event : trace.at("traceEvents")) {
    if (event.at("name") == "kv") cache.push_back(event.at("args"));
    if (event.at("name") == "thread_name") threads.push_back(event.at("args").at("name"));
    if (event.at("name") == "memory") resident = event.at("args").at("rss_mb");
  }
  const json used = {{"blocks_used", 2}, {"blocks_total", 8 * kMaxSeqLen / kBlockSize}};
  EXPECT_EQ(cache, std::vector<json>(3, used));
  EXPECT_GT(resident, 1);
  std::ranges::sort(threads);
  EXPECT_EQ(threads, (std::vector<json>{"caller", "step thread"}));
}

// Long prompts come in chunks, and who decodes has a token in every step beside them.
TEST_F(TraceTest, LongPromptsLeaveRoomForOthers) {
  const Package package = open();
  std::atomic<bool> decoding = false, done = false;
  std::thread decoder([&] {
    const auto go_on = [&](int64_t) { return decoding = true, !done; };
    generate(new_session(package), {1}, greedy_sampling(600), go_on);
  });
  while (!decoding) std::this_thread::yield();
  ingot_trace_start();
  std::vector<std::thread> callers;
  for (int64_t caller = 0; caller < 3; caller++)
    callers.emplace_back([&package, caller] {
      const std::vector<int64_t> prompt = prompt_of(600, caller);
      EXPECT_EQ(generate(new_session(package), prompt, greedy_sampling(1)).tokens,
                greedy(prompt, 1));
    });
  for (std::thread& caller : callers) caller.join();
  const std::vector<json> events = written();
  done = true;
  decoder.join();
  for (const json& step : named(events, "step")) {
    const json& facts = step.at("args");
    EXPECT_LE(facts.at("tokens"), 256 + 3) << "a prompt for which no room is left still takes one";
    EXPECT_GE(facts.at("rows"), 1);  // the decoder's, since no row is of a prompt's middle
    EXPECT_TRUE(facts.at("tokens") == 1 || facts.at("sequences") >= 2) << facts;
  }
}

TEST_F(TraceTest, StartsAndStopsWhileSessionsRun) {
  const Package package = open();
  std::atomic<bool> done = false;
  std::vector<std::thread> callers;
  for (int64_t caller = 0; caller < 3; caller++) {
    callers.emplace_back([&package, &done, caller] {
      while (!done) generate(new_session(package), {caller}, greedy_sampling(5));
    });
  }
  for (int round = 0; round < 20; round++) {
    ingot_trace_start();
    std::this_thread::sleep_for(std::chrono::milliseconds(2));
    const std::vector<json> events = written();
    // A step is there with its kernel or not at all.
    const auto inside = [&](const json& step) {
      return std::ranges::count_if(events, [&](const json& e) {
        return e.at("cat") == "kernel" && e.at("ts") >= step.at("ts") &&
               e.at("ts").get<double>() <=
                   step.at("ts").get<double>() + step.at("dur").get<double>();
      });
    };
    for (const json& step : named(events, "step")) EXPECT_EQ(inside(step), 1);
  }
  done = true;
  for (std::thread& caller : callers) caller.join();
}

TEST_F(TraceTest, ConcurrentSessionsShareSteps) {
  const Package package = open();
  ingot_trace_start();
  std::vector<std::thread> callers;
  for (int64_t caller = 0; caller < 4; caller++) {
    callers.emplace_back(
        [&package, caller] { generate(new_session(package), {caller}, greedy_sampling(100)); });
  }
  for (std::thread& caller : callers) caller.join();
  const std::vector<json> steps = named(written(), "step");
  int64_t shared = 0;
  for (const json& step : steps) shared += step.at("args").at("sequences") > 1;
  EXPECT_GT(shared, 50) << "of " << steps.size();
  EXPECT_LT(steps.size(), 300u);
}

TEST_F(TraceTest, NothingIsRecordedAfterWriting) {
  const Package package = open();
  const Session session = new_session(package);
  ingot_trace_start();
  generate(session, {1}, greedy_sampling(2));
  EXPECT_FALSE(written().empty());
  generate(session, {1}, greedy_sampling(2));
  ingot_trace_start();
  EXPECT_TRUE(written().empty());
}

TEST_F(TraceTest, RefusesAPathThatCannotBeWritten) {
  ingot_trace_start();
  EXPECT_EQ(ingot_trace_write("/nowhere/trace.json"), INGOT_BAD_INPUT);
  EXPECT_NE(std::string(ingot_last_error()).find("/nowhere/trace.json"), std::string::npos);
}

TEST_F(TraceTest, AFullDeviceLeavesNothing) {
  ingot_trace_start();
  EXPECT_EQ(ingot_trace_write("/dev/full"), INGOT_BAD_INPUT);
  EXPECT_NE(std::string(ingot_last_error()).find("has room"), std::string::npos);
  EXPECT_TRUE(std::filesystem::is_character_file("/dev/full"));
  ingot_trace_start();
  EXPECT_EQ(ingot_trace_write(folder_.c_str()), INGOT_BAD_INPUT);
  EXPECT_TRUE(std::filesystem::is_empty(folder_));
}

TEST_F(TraceTest, MeasuresReading) {
  PackageSource source = toy_source();
  source.entries["ingot/weights.bin"].resize(8 << 20);
  source.hash_entries();
  const Package package = open(source);
  const double rate = ingot_measure_read(package.get(), 8 << 20);
  EXPECT_GT(rate, 0.05);
  EXPECT_LT(rate, 2000);
  EXPECT_EQ(ingot_measure_read(nullptr, 8 << 20), 0);
  EXPECT_STREQ(ingot_last_error(), "package is NULL");
}

TEST(Measure, ReadsAnyMemory) {
  SKIP_WHERE_BARRIERS_ARE_UNSEEN();
  const std::vector<char> memory(8 << 20, 1);
  const double rate = ingot_measure_memory(memory.data(), memory.size(), 2);
  EXPECT_GT(rate, 0.05);
  EXPECT_LT(rate, 2000);
}

TEST(Measure, MultipliesByTheCpusLevel) {
  for (const char* factor : {"float32", "bfloat16", "int8"})
    EXPECT_GT(ingot_measure_peak(factor, 1), 0.1) << factor;
  EXPECT_EQ(ingot_measure_peak("float8", 1), 0);
  EXPECT_EQ(std::string(ingot_last_error()),
            "peaks are of float32, bfloat16 and int8, not of \"float8\"");
}

// The level is chosen once a process, and ctest gives each of these tests its own.
TEST(Measure, MultipliesByTheLevelThatIsAskedFor) {
  SKIP_WHERE_BARRIERS_ARE_UNSEEN();
  setenv("INGOT_ISA", "x86-64-v9", 1);
  EXPECT_EQ(ingot_measure_peak("float32", 1), 0);
  EXPECT_NE(std::string(ingot_last_error()).find("x86-64-v9"), std::string::npos);
  setenv("INGOT_ISA", "x86-64-v2", 1);
  EXPECT_GT(ingot_measure_peak("float32", 0), 0.1);
}

}  // namespace
}  // namespace ingot::test

// Traces, and the read benchmark.
#include <thread>

#include "toy_package.h"

namespace ingot::test {
namespace {

using nlohmann::json;

class TraceTest : public PackageTest {
 protected:
  json written() {
    const std::string path = (folder_ / "trace.json").string();
    EXPECT_EQ(ingot_trace_write(path.c_str()), INGOT_OK) << ingot_last_error();
    return json::parse(read_file(path)).at("traceEvents");
  }
};

std::vector<json> named(const json& events, const std::string& name) {
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
  const json events = written();
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

TEST_F(TraceTest, MeasuresReading) {
  PackageSource source = toy_source();
  source.entries["ingot/weights.bin"].resize(8 << 20);
  source.hash_entries();
  const Package package = open(source);
  const double rate = ingot_measure_read(package.get(), 8 << 20);
  EXPECT_GT(rate, 0.05);
  EXPECT_LT(rate, 2000);
}

TEST(Measure, ReadsAnyMemory) {
  const std::vector<char> memory(8 << 20, 1);
  const double rate = ingot_measure_memory(memory.data(), memory.size(), 2);
  EXPECT_GT(rate, 0.05);
  EXPECT_LT(rate, 2000);
}

TEST(Measure, MultipliesByEachLevel) {
  EXPECT_GT(ingot_measure_flops(1), 0.1);
  setenv("INGOT_ISA", "x86-64-v2", 1);
  EXPECT_GT(ingot_measure_flops(0), 0.1);
  setenv("INGOT_ISA", "x86-64-v9", 1);
  EXPECT_EQ(ingot_measure_flops(1), 0);
  EXPECT_NE(std::string(ingot_last_error()).find("x86-64-v9"), std::string::npos);
  unsetenv("INGOT_ISA");
}

}  // namespace
}  // namespace ingot::test

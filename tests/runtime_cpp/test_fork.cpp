// After fork() the step thread is in the parent alone: the child is told so and does not hang.
#include <sys/wait.h>

#include <chrono>
#include <thread>

#include "toy_package.h"

namespace ingot::test {
namespace {

// Runs `body` in a child; its exit status, or -1 if it had to be killed after five seconds.
int in_child(const std::function<int()>& body) {
  const pid_t child = fork();
  if (child == 0) _exit(body());
  for (int waited = 0; waited < 500; waited++) {
    int status = 0;
    if (waitpid(child, &status, WNOHANG) == child) {
      return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
    }
    std::this_thread::sleep_for(std::chrono::milliseconds(10));
  }
  kill(child, SIGKILL);
  waitpid(child, nullptr, 0);
  return -1;
}

using ForkTest = PackageTest;

TEST_F(ForkTest, TheChildIsRefusedWithASentence) {
  const Package package = open();
  const Session session = new_session(package);
  EXPECT_EQ(in_child([&] {
              const Generated made = generate(session, {1}, greedy_sampling(1));
              const std::string sentence = ingot_last_error();
              return made.status != INGOT_OK && sentence.find("fork") != std::string::npos ? 0 : 1;
            }),
            0);
  EXPECT_EQ(generate(session, {1, 2}, greedy_sampling(5)).tokens, greedy({1, 2}, 5));
}

TEST_F(ForkTest, TheChildMeasuresNothing) {
  const Package package = open();
  EXPECT_EQ(in_child([&] {
              const bool none = ingot_measure_read(package.get(), 1 << 20) == 0;
              return none && std::string(ingot_last_error()).find("fork") != std::string::npos ? 0
                                                                                               : 1;
            }),
            0);
  EXPECT_GT(ingot_measure_read(package.get(), 1 << 20), 0);
}

TEST_F(ForkTest, TheChildMayClose) {
  Package package = open();
  Session session = new_session(package);
  generate(session, {1}, greedy_sampling(1));
  EXPECT_EQ(in_child([&] {
              session.reset();
              package.reset();
              return 0;
            }),
            0);
}

// The fork happens while the step thread works, and so may hold any lock.
TEST_F(ForkTest, AForkInTheMiddleOfAStep) {
  const Package package = open();
  std::thread busy([&package] { generate(new_session(package), {3}, greedy_sampling(600)); });
  const Session session = new_session(package);
  for (int i = 0; i < 20; i++) {
    EXPECT_EQ(in_child([&] {
                const Generated made = generate(session, {1}, greedy_sampling(1));
                return made.status != INGOT_OK ? 0 : 1;
              }),
              0);
  }
  busy.join();
}

TEST_F(ForkTest, TheChildCanOpenItsOwn) {
  const std::string path = write(toy_source().zip());
  EXPECT_EQ(in_child([&] {
              ingot_package* opened = nullptr;
              if (ingot_package_open(path.c_str(), nullptr, &opened) != INGOT_OK) return 1;
              const Package package(opened, ingot_package_close);
              const Session session = new_session(package);
              return generate(session, {1, 2}, greedy_sampling(5)).tokens == greedy({1, 2}, 5) ? 0
                                                                                               : 1;
            }),
            0);
}

}  // namespace
}  // namespace ingot::test

// The step thread: packages hand it their steps, whoever calls from wherever, and it runs one after
// the other on one OpenMP team, which goes from package to package. With a team each, the threads
// of two packages are more than the cores, and libgomp lets none spin for long (its manual,
// GOMP_SPINCOUNT): two encoders that were called in turns took two to four times as long.
#pragma once
#include <sys/types.h>

#include <condition_variable>
#include <functional>
#include <list>
#include <memory>
#include <mutex>
#include <thread>

#include "team.h"

namespace ingot {
class StepThread {
 public:
  // One step, on the step thread with its team. Returns whether there is another to come, which has
  // its turn after everybody else's. May not throw.
  using Turn = std::function<bool(Team&)>;

  // Of a team of `threads`, 0: the cores that are free. Another package's, if the cores are too few
  // for one more team of that size; a thread ends with the last package that has it.
  static std::shared_ptr<StepThread> of(int threads);

  explicit StepThread(int threads);
  ~StepThread();
  StepThread(const StepThread&) = delete;
  StepThread& operator=(const StepThread&) = delete;

  void post(Turn turn);
  // Runs a step, and returns at its end; throws what it threw, and what `check_caller` does.
  void run(const std::function<void()>& step);
  // Before a caller hands in and waits: throws Error in a forked child, and ends the OpenMP team
  // that the caller may have.
  void check_caller() const;
  // Whether this is a forked child: the thread stayed in the parent, maybe with a lock held, so
  // nothing that it touches may be touched, not even destroyed.
  bool in_child() const;

 private:
  void loop(int threads);

  const pid_t process_;
  std::mutex mutex_;
  std::condition_variable work_, done_;
  std::list<Turn> turns_;
  bool closing_ = false;
  std::thread thread_;
};
}  // namespace ingot

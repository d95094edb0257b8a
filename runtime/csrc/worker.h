// One thread that runs what others hand it, one after the other, whoever calls from wherever: so a
// package keeps one OpenMP team.
#pragma once
#include <sys/types.h>

#include <condition_variable>
#include <deque>
#include <functional>
#include <mutex>
#include <thread>

namespace ingot {
class Worker {
 public:
  explicit Worker(int threads);  // of its OpenMP team; 0: the cores that are free
  ~Worker();
  Worker(const Worker&) = delete;
  Worker& operator=(const Worker&) = delete;

  // Returns when the job has run; throws what it threw, or Error in a forked child, where the
  // thread does not exist.
  void run(const std::function<void()>& job);
  bool in_child() const;

 private:
  struct Job;
  void loop(int threads);

  const pid_t process_;
  std::mutex mutex_;
  std::condition_variable work_, done_;
  std::deque<Job*> jobs_;
  bool closing_ = false;
  std::thread thread_;
};
}  // namespace ingot

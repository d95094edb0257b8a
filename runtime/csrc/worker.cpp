#include "worker.h"

#include <unistd.h>

#include <exception>

#include "error.h"
#include "team.h"

namespace ingot {
struct Worker::Job {
  const std::function<void()>* body;
  std::exception_ptr error;
  bool finished = false;
};

Worker::Worker(int threads) : process_(getpid()), thread_([this, threads] { loop(threads); }) {}

Worker::~Worker() {
  {
    std::lock_guard lock(mutex_);
    closing_ = true;
  }
  work_.notify_all();
  thread_.join();
}

bool Worker::in_child() const { return getpid() != process_; }

void Worker::run(const std::function<void()>& body) {
  if (in_child())
    bad_input("this package was opened before fork(); open it again in the child process");
  end_own_team();
  Job job{&body, nullptr};
  {
    std::unique_lock lock(mutex_);
    jobs_.push_back(&job);
    work_.notify_one();
    done_.wait(lock, [&] { return job.finished; });
  }
  if (job.error) std::rethrow_exception(job.error);
}

void Worker::loop(int threads) {
  Team team(threads);
  std::unique_lock lock(mutex_);
  for (;;) {
    team.wait(work_, lock, [&] { return closing_ || !jobs_.empty(); });
    if (jobs_.empty()) return;
    Job& job = *jobs_.front();
    jobs_.pop_front();
    lock.unlock();
    try {
      team.assemble();
      (*job.body)();
    } catch (...) {
      job.error = std::current_exception();
    }
    lock.lock();
    job.finished = true;
    done_.notify_all();
  }
}
}  // namespace ingot

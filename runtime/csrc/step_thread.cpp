#include "step_thread.h"

#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <exception>
#include <utility>
#include <vector>

#include "cpu.h"
#include "error.h"

namespace ingot {
namespace {
// The step threads that packages have.
struct StepThreads {
  const pid_t process = getpid();
  std::mutex mutex;
  std::vector<std::pair<int, std::weak_ptr<StepThread>>> all;  // by the threads of their teams
};

// This process's. A forked child begins anew and leaves its parent's, whose lock may be held.
StepThreads& step_threads() {
  static std::atomic<StepThreads*> current{nullptr};
  StepThreads* found = current;
  while (!found || found->process != getpid()) {
    auto made = std::make_unique<StepThreads>();
    if (current.compare_exchange_strong(found, made.get())) found = made.release();
  }
  return *found;
}
}  // namespace

std::shared_ptr<StepThread> StepThread::of(int threads) {
  if (threads == 1) return std::make_shared<StepThread>(1);  // no team that could be shared
  const int most = threads == 0 ? 1 : std::max(usable_cores() / threads, 1);
  StepThreads& here = step_threads();
  std::lock_guard lock(here.mutex);
  std::erase_if(here.all, [](const auto& entry) { return entry.second.expired(); });
  int count = 0;
  std::shared_ptr<StepThread> least_shared;
  for (const auto& [size, entry] : here.all) {
    const std::shared_ptr<StepThread> found = entry.lock();
    if (size != threads || !found) continue;
    count++;
    if (!least_shared || found.use_count() < least_shared.use_count()) least_shared = found;
  }
  if (count >= most) return least_shared;
  auto made = std::make_shared<StepThread>(threads);
  here.all.emplace_back(threads, made);
  return made;
}

StepThread::StepThread(int threads)
    : process_(getpid()), thread_([this, threads] { loop(threads); }) {}

StepThread::~StepThread() {
  {
    std::lock_guard lock(mutex_);
    closing_ = true;
  }
  work_.notify_one();
  thread_.join();
}

bool StepThread::in_child() const { return getpid() != process_; }

void StepThread::post(Turn turn) {
  {
    std::lock_guard lock(mutex_);
    turns_.push_back(std::move(turn));
  }
  work_.notify_one();
}

void StepThread::check_caller() const {
  if (in_child())
    bad_input("this package was opened before fork(); open it again in the child process");
  end_own_team();
}

void StepThread::run(const std::function<void()>& step) {
  check_caller();
  struct {
    const std::function<void()>& body;
    std::exception_ptr error;
    bool finished = false;
  } job{step, nullptr};
  post([this, &job](Team& team) {
    try {
      team.assemble();
      job.body();
    } catch (...) {
      job.error = std::current_exception();
    }
    std::lock_guard lock(mutex_);
    job.finished = true;
    done_.notify_all();
    return false;
  });
  {
    std::unique_lock lock(mutex_);
    done_.wait(lock, [&] { return job.finished; });
  }
  if (job.error) std::rethrow_exception(job.error);
}

void StepThread::loop(int threads) {
  Team team(threads);
  std::unique_lock lock(mutex_);
  for (;;) {
    team.wait(work_, lock, [&] { return closing_ || !turns_.empty(); });
    if (turns_.empty()) return;
    std::list<Turn> now;
    now.splice(now.begin(), turns_, turns_.begin());
    lock.unlock();
    const bool again = now.front()(team);
    lock.lock();
    if (again) turns_.splice(turns_.end(), now);
  }
}
}  // namespace ingot

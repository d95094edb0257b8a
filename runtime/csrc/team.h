// How many threads a step takes: as many as the user said, or as there are cores that nobody else
// uses, asked again while it works. A thread that shares its core holds up every barrier by a
// scheduler slice: with two of four cores busy, four threads were 120 times slower than two.
#pragma once
#include <sched.h>

#include <chrono>
#include <condition_variable>
#include <mutex>
#include <optional>

namespace ingot {
// CPU seconds since some beginning, and when that was read.
struct CpuTimes {
  double machine;  // busy, of all cores and processes
  double own;      // of this process
  double wall;
};

// As the system counts them now; `machine` in hundredths, 0 where it does not say.
CpuTimes read_times();

// Cores that others left free between two readings: `cores` less what the machine was busy with
// beyond ourselves, at most `usable`, at least 1.
int free_cores_between(const CpuTimes& before, const CpuTimes& after, int cores, int usable);

// Ends the OpenMP team that the calling thread has, if any; its next parallel region creates it
// anew. libgomp counts the threads of all teams of a process, PyTorch's too, and where they are
// more than the cores none waits at a barrier for long before it sleeps: decode was 2.5 times
// slower while the caller's thread kept the team of a matrix product.
void end_own_team();

class Team {
 public:
  explicit Team(int threads) : fixed_(threads) {}  // 0: the cores that are free

  // Sets the OpenMP team of the calling thread for the step that it begins. Load is read a few
  // times a second; the first time by how many threads run at this moment.
  void assemble();

  // Waits for work. If there is none for a while the team ends: others get its threads' share.
  template <class Ready>
  void wait(std::condition_variable& work, std::unique_lock<std::mutex>& lock, Ready ready) {
    if (work.wait_for(lock, std::chrono::milliseconds(50), ready)) return;
    lock.unlock();
    end();
    lock.lock();
    work.wait(lock, ready);
  }

 private:
  void end();
  void unbind();

  int fixed_;
  std::optional<CpuTimes> last_;
  int chosen_ = 0, widest_ = 1;
  // While the threads are bound to a core each, because they are as many: the cores they had
  // before.
  std::optional<cpu_set_t> unbound_;
};
}  // namespace ingot

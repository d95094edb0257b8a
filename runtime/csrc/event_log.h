// What threads note down without waiting for anybody: each writes to a log of its own, and one
// reader empties the logs while the threads go on. Memory is taken once for thousands of events.
#pragma once
#include <unistd.h>

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <mutex>
#include <utility>
#include <vector>

namespace ingot {
// One log for each type of event; all of it static. Event is copied.
template <class Event>
class EventLog {
 public:
  // By any thread; never waits for `collect`.
  static void add(const Event& event) { own().add(event); }

  // Hands each event to take(event, thread) once, each thread's oldest first; `thread` is the
  // kernel's id of it.
  template <class Take>
  static void collect(Take take) {
    std::lock_guard lock(registry().mutex);
    std::erase_if(registry().logs, [&](const std::unique_ptr<Log>& log) {
      // Asked before reading: then all is there.
      const bool ended = log->ended.load(std::memory_order_acquire);
      log->drain(take);
      return ended;
    });
  }

 private:
  struct Chunk {
    static constexpr size_t kEvents = 4096;
    std::array<Event, kEvents> events;
    std::atomic<size_t> count{0};  // published by the writer
    std::atomic<Chunk*> next{nullptr};
  };

  // Written by its thread alone, read by one reader at a time.
  class Log {
   public:
    ~Log() {
      while (first_) delete std::exchange(first_, first_->next.load());
    }
    void add(const Event& event) {
      size_t used = last_->count.load(std::memory_order_relaxed);
      if (used == Chunk::kEvents) {
        auto* chunk = new Chunk;
        last_->next.store(chunk, std::memory_order_release);
        last_ = chunk;
        used = 0;
      }
      last_->events[used] = event;
      last_->count.store(used + 1, std::memory_order_release);
    }
    template <class Take>
    void drain(Take& take) {
      for (;;) {
        Chunk* next = first_->next.load(std::memory_order_acquire);  // if any, this one is full
        const size_t count = first_->count.load(std::memory_order_acquire);
        for (; taken_ < count; taken_++) take(first_->events[taken_], thread_);
        if (!next) return;
        delete std::exchange(first_, next);
        taken_ = 0;
      }
    }
    std::atomic<bool> ended{false};

   private:
    const int32_t thread_ = static_cast<int32_t>(gettid());
    Chunk* first_ = new Chunk;  // the reader's
    size_t taken_ = 0;          // of it
    Chunk* last_ = first_;      // the writer's
  };

  struct Registry {
    std::mutex mutex;
    std::vector<std::unique_ptr<Log>> logs;
  };
  // Never destroyed: a step may still run when the process's static objects end.
  static Registry& registry() {
    static auto* const all = new Registry;
    return *all;
  }
  static Log& own() {
    thread_local const Owner owner;
    return *owner.log;
  }
  struct Owner {
    Owner() : log(new Log) {
      std::lock_guard lock(registry().mutex);
      registry().logs.emplace_back(log);
    }
    ~Owner() { log->ended.store(true, std::memory_order_release); }
    Log* log;
  };
};
}  // namespace ingot

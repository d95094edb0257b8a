// A package's steps: each runs the ragged graph once, on the step thread, for all sessions that
// have a call in progress. That is continuous batching (Yu et al. 2022, Orca, section 4).
#pragma once
#include <condition_variable>
#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <vector>

#include "error.h"
#include "graph.h"
#include "kv_pool.h"
#include "sampler.h"
#include "step_thread.h"
#include "trace.h"

namespace ingot {
struct Job;

// What the KV cache holds of one session. Touched under the engine's lock alone.
struct Sequence {
  Job* job = nullptr;  // the call in progress
  std::vector<int64_t> blocks;
  int64_t length = 0;              // tokens in the cache
  std::optional<int64_t> pending;  // generated last, not in the cache yet
};

// One call of a session: tokens to append, and what is wanted after them.
struct Job {
  Sequence* sequence = nullptr;
  std::vector<int64_t> tokens;
  // generate
  int64_t max_new_tokens = 0;
  std::optional<Sampler> sampler;
  std::vector<int64_t> stop_tokens;
  // logits: the rows of the last `logit_rows` tokens are handed to this, in order, as they are
  // made; on the step thread
  std::function<void(const float* logits, int64_t rows)> take_logits;
  size_t logit_rows = 0;

  // the engine's
  int64_t start_length = 0, prompt_count = 0;  // tokens cached before, tokens to append
  bool had_pending = false;                    // of these the first was the sequence's
  size_t fed = 0;
  int64_t taken = 0;  // made, and handed to the caller
  int64_t made_count = 0;
  std::deque<int64_t> made;
  bool cancelled = false, finished = false;
  std::optional<Error> error;
  double submitted = 0, first_token = 0, last_token = 0;  // seconds, steady clock
};

struct EngineLimits {
  int64_t vocab_size, max_seq_len, block_size, cache_tokens;
  int64_t step_tokens;       // of all prompts in one step: bounds latency and temporaries
  int64_t lone_step_tokens;  // the same where no other job waits for the step
  const char* model;         // as StepFacts has it
};

class Engine {
 public:
  // `run` is called on the thread alone.
  Engine(RunGraph run, KvPool& pool, const EngineLimits& limits, StepThread& thread);
  ~Engine();
  Engine(const Engine&) = delete;
  Engine& operator=(const Engine&) = delete;

  // Runs a job to its end; each token made is handed to `take`, on the calling thread, which
  // returns false to stop. `job.cancelled` tells whether it was stopped. Throws Error, also when
  // the sequence has a job already, and what `take` throws. The sequence then holds what `take` was
  // given, or, where that is nothing, what it held before.
  void run(Job& job, const std::function<bool(int64_t)>& take);
  int64_t length(const Sequence& sequence);
  // Empties a sequence. A job that it has is stopped first.
  void release(Sequence& sequence);

 private:
  // One step's share of a job, and the graph's inputs for all of them.
  struct Share {
    Job* job;
    int64_t count;      // tokens fed
    int64_t first_row;  // of the step's logits
    int64_t rows;
    std::optional<int64_t> token{};  // that was sampled, unless that failed
    std::optional<Error> error{};
  };
  struct Batch {
    std::vector<Share> shares;
    std::vector<int64_t> tokens, positions, slots, query_start{0}, seq_lens, context_lens,
        block_table, rows;
    int64_t table_width = 1;
    bool ended = false;  // some job, before the step
    StepFacts facts;
  };

  void check(const Job& job);
  bool turn(Team& team);
  Batch assemble();
  int64_t blocks_of(int64_t length) const;
  bool reserve(Sequence& sequence, int64_t count);
  Error no_blocks() const;
  void add(Batch& batch, Job& job, int64_t count);
  void describe(Batch& batch) const;
  Results execute(Batch& batch);
  void sample(Batch& batch, const float* logits) const;
  void settle(const Batch& batch, const float* logits);
  void settle(const Share& share, const float* rows);
  void settle_failure(const Batch& batch, const Error& error);
  void settle_generated(Job& job, int64_t token);
  void finish(Job& job);
  void fail(Job& job, const Error& error);
  void rewind(Job& job, int64_t seen);
  static void trace(const Job& job);
  bool drop_finished();
  void wake_callers();

  const RunGraph run_graph_;
  KvPool& pool_;
  const EngineLimits limits_;
  StepThread& thread_;
  std::mutex mutex_;
  std::condition_variable progress_;
  std::vector<Job*> jobs_;
  int64_t alone_ = 0;      // steps to come that take one job each, since one of several failed
  bool has_turn_ = false;  // to come or under way: as long as there are jobs
};
}  // namespace ingot

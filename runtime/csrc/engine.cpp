#include "engine.h"

#include <algorithm>
#include <exception>
#include <new>
#include <span>

#include "clock.h"

namespace ingot {
namespace {
constexpr int64_t kStepLogitRows = 64;       // of one job: a row is as long as the vocabulary
constexpr int32_t kInt64 = 4, kFloat32 = 6;  // c10::ScalarType

double now() { return static_cast<double>(now_ns()) * 1e-9; }
int64_t nanoseconds(double seconds) { return static_cast<int64_t>(seconds * 1e9); }

// What `body` throws: nothing may leave the step thread, where it would end the process.
template <class Body>
std::optional<Error> failure_of(Body body) {
  try {
    body();
    return {};
  } catch (const Error& error) {
    return error;
  } catch (const std::bad_alloc&) {
    return Error(INGOT_NO_SPACE, "out of memory");
  } catch (const std::exception& error) {
    return Error(INGOT_FAILED, std::string("the step failed: ") + error.what());
  }
}
}  // namespace

Engine::Engine(RunGraph run, KvPool& pool, const EngineLimits& limits, StepThread& thread)
    : run_graph_(std::move(run)), pool_(pool), limits_(limits), thread_(thread) {}

// Nobody calls any more, but the last turn may not be over.
Engine::~Engine() {
  std::unique_lock lock(mutex_);
  progress_.wait(lock, [&] { return !has_turn_; });
}

void Engine::check(const Job& job) {
  for (int64_t token : job.tokens)
    if (token < 0 || token >= limits_.vocab_size)
      bad_input("token id " + std::to_string(token) + " is out of range; the model has ids 0 to " +
                std::to_string(limits_.vocab_size - 1));
  const int64_t prompt = job.sequence->length + static_cast<int64_t>(job.tokens.size());
  const std::string asked =
      std::to_string(prompt) + " tokens with what the session holds" +
      (job.max_new_tokens ? ", and " + std::to_string(job.max_new_tokens) + " new ones" : "");
  // The last new token is not fed, but it has a position all the same.
  if (job.max_new_tokens > limits_.max_seq_len - prompt)  // a sum might overflow
    bad_input("the prompt is too long: " + asked + ", where the package takes " +
              std::to_string(limits_.max_seq_len) +
              " in all; shorten it, ask for fewer, or export with a larger --max-seq-len");
  if (job.max_new_tokens > limits_.cache_tokens - prompt)
    throw Error(INGOT_NO_SPACE, "the KV cache is full: it holds " +
                                    std::to_string(limits_.cache_tokens) + " tokens, asked are " +
                                    asked + "; open the package with a larger kv_tokens");
}

void Engine::run(Job& job, const std::function<bool(int64_t)>& take) {
  thread_.check_caller();
  std::unique_lock lock(mutex_);
  Sequence& sequence = *job.sequence;
  if (sequence.job)
    bad_input("the session is busy with another call; wait for its end, or make a second session");
  if (job.tokens.empty()) bad_input("the prompt is empty; give at least one token");
  if (sequence.pending) job.tokens.insert(job.tokens.begin(), *sequence.pending);
  check(job);
  job.start_length = sequence.length;
  job.prompt_count = static_cast<int64_t>(job.tokens.size());
  job.had_pending = sequence.pending.has_value();
  // The whole prompt's at once: one that does not fit is refused before it costs others anything.
  if (!reserve(sequence, job.prompt_count)) throw no_blocks();
  if (!has_turn_) thread_.post([this](Team& team) { return turn(team); });
  has_turn_ = true;
  sequence.pending.reset();
  sequence.job = &job;
  job.submitted = now();
  jobs_.push_back(&job);
  std::exception_ptr thrown;  // by `take`: the step thread must be done with the job all the same
  for (;;) {
    progress_.wait(lock, [&] { return !job.made.empty() || job.finished; });
    if (job.made.empty()) break;
    const int64_t token = job.made.front();
    job.made.pop_front();
    if (job.cancelled) continue;
    job.taken++;
    lock.unlock();
    bool go_on = false;
    try {
      go_on = take(token);
    } catch (...) {
      thrown = std::current_exception();
    }
    lock.lock();
    if (!go_on) job.cancelled = true;
  }
  if (job.cancelled) rewind(job, job.taken);
  trace(job);
  sequence.job = nullptr;  // from here it may be gone: release() waits for this
  progress_.notify_all();
  if (thrown) std::rethrow_exception(thrown);
  if (job.error && !job.cancelled) throw *job.error;  // else it came after what was wanted
}

int64_t Engine::length(const Sequence& sequence) {
  std::lock_guard lock(mutex_);
  return sequence.length + (sequence.pending ? 1 : 0);
}

void Engine::release(Sequence& sequence) {
  std::unique_lock lock(mutex_);
  if (sequence.job) sequence.job->cancelled = true;
  progress_.wait(lock, [&] { return !sequence.job; });
  pool_.give_back(sequence.blocks);
  sequence = {};
}

bool Engine::turn(Team& team) {
  std::unique_lock lock(mutex_);
  Batch batch;
  if (const auto error = failure_of([&] { batch = assemble(); })) {
    for (Job* job : jobs_) fail(*job, *error);
  } else if (!batch.shares.empty()) {
    lock.unlock();
    if (batch.ended) wake_callers();
    std::optional<Results> results;
    const auto failed = failure_of([&] {
      {
        const HostTrace choosing("choose threads");
        team.assemble();
      }
      results.emplace(execute(batch));
      sample(batch, static_cast<const float*>(results->array(0).data));
    });
    lock.lock();
    if (failed)
      settle_failure(batch, *failed);
    else
      settle(batch, static_cast<const float*>(results->array(0).data));
  }
  drop_finished();
  lock.unlock();
  wake_callers();
  lock.lock();
  has_turn_ = !jobs_.empty();
  if (!has_turn_) progress_.notify_all();  // under the lock: the destructor waits for this
  return has_turn_;
}

// A finished job belongs to its caller again, who may end it as soon as the lock is free.
bool Engine::drop_finished() {
  return std::erase_if(jobs_, [](const Job* job) { return job->finished; }) > 0;
}

// Not under the lock, for which they would wait at once.
void Engine::wake_callers() {
  const HostTrace waking("wake callers");
  progress_.notify_all();
}

Engine::Batch Engine::assemble() {
  const HostTrace assembling("assemble");
  Batch batch;
  int64_t budget = jobs_.size() == 1 ? limits_.lone_step_tokens : limits_.step_tokens;
  for (Job* job : jobs_) {
    if (alone_ > 0 && !batch.shares.empty()) break;
    if (job->cancelled) {
      finish(*job);
      continue;
    }
    // A job that decodes always gets its one token; prompts share what is left of the budget.
    const auto left = static_cast<int64_t>(job->tokens.size() - job->fed);
    int64_t count = std::min(left, std::max<int64_t>(budget, 1));
    if (job->take_logits) {
      const int64_t without = std::max<int64_t>(left - static_cast<int64_t>(job->logit_rows), 0);
      count = std::min(count, without + kStepLogitRows);
    }
    if (!reserve(*job->sequence, count)) {
      fail(*job, no_blocks());
      continue;
    }
    budget -= count;
    add(batch, *job, count);
  }
  batch.ended = drop_finished();
  if (alone_ > 0) alone_--;
  std::rotate(jobs_.begin(), jobs_.begin() + (jobs_.empty() ? 0 : 1), jobs_.end());
  if (!batch.shares.empty() && batch.rows.empty()) batch.rows.push_back(0);  // R is at least 1
  if (tracing()) describe(batch);
  return batch;
}

int64_t Engine::blocks_of(int64_t length) const {
  return (length + limits_.block_size - 1) / limits_.block_size;
}

// All blocks or none.
bool Engine::reserve(Sequence& sequence, int64_t count) {
  const int64_t missing =
      blocks_of(sequence.length + count) - static_cast<int64_t>(sequence.blocks.size());
  if (missing > pool_.total() - pool_.used()) return false;
  sequence.blocks.reserve(blocks_of(sequence.length + count));
  for (int64_t i = 0; i < missing; i++) sequence.blocks.push_back(pool_.take());
  return true;
}

Error Engine::no_blocks() const {
  return Error(INGOT_NO_SPACE,
               "the KV cache is full: of its " +
                   std::to_string(pool_.total() * limits_.block_size) + " tokens, " +
                   std::to_string(pool_.used() * limits_.block_size) +
                   " are taken; close a session, or open the package with a larger kv_tokens");
}

void Engine::add(Batch& batch, Job& job, int64_t count) {
  const Sequence& sequence = *job.sequence;
  const int64_t start = batch.query_start.back(), total = static_cast<int64_t>(job.tokens.size());
  Share share{
      .job = &job, .count = count, .first_row = static_cast<int64_t>(batch.rows.size()), .rows = 0};
  for (int64_t i = 0; i < count; i++) {
    const int64_t index = static_cast<int64_t>(job.fed) + i, position = sequence.length + i;
    batch.tokens.push_back(job.tokens[index]);
    batch.positions.push_back(position);
    batch.slots.push_back(sequence.blocks[position / limits_.block_size] * limits_.block_size +
                          position % limits_.block_size);
    const bool wanted = job.take_logits ? total - index <= static_cast<int64_t>(job.logit_rows)
                                        : index == total - 1;
    if (wanted) batch.rows.push_back(start + i);
  }
  share.rows = static_cast<int64_t>(batch.rows.size()) - share.first_row;
  batch.query_start.push_back(start + count);
  batch.seq_lens.push_back(sequence.length + count);
  batch.context_lens.push_back(job.start_length + total);
  batch.table_width = std::max(batch.table_width, blocks_of(sequence.length + count));
  batch.shares.push_back(share);
}

void Engine::describe(Batch& batch) const {
  StepFacts& facts = batch.facts;
  facts = {.model = limits_.model,
           .tokens = static_cast<int64_t>(batch.tokens.size()),
           .sequences = static_cast<int64_t>(batch.shares.size()),
           .rows = static_cast<int64_t>(batch.rows.size()),
           .blocks = batch.table_width,
           .kv_used = pool_.used(),
           .kv_total = pool_.total()};
  for (const Share& share : batch.shares)
    facts.prefill |= static_cast<int64_t>(share.job->fed) < share.job->prompt_count;
  for (const int64_t length : batch.seq_lens) facts.context += length;
  for (const int64_t position : batch.positions) facts.pairs += position + 1;
}

Results Engine::execute(Batch& batch) {
  HostTrace preparing("inputs");
  const int64_t tokens = batch.tokens.size(), sequences = batch.shares.size();
  batch.block_table.assign(sequences * batch.table_width, 0);
  for (int64_t s = 0; s < sequences; s++) {
    const std::vector<int64_t>& blocks = batch.shares[s].job->sequence->blocks;
    std::copy_n(blocks.begin(), blocks_of(batch.seq_lens[s]),
                batch.block_table.begin() + s * batch.table_width);
  }
  std::vector<Array> inputs = {
      {batch.tokens.data(), kInt64, {tokens}},
      {batch.positions.data(), kInt64, {tokens}},
      {batch.slots.data(), kInt64, {tokens}},
      {batch.query_start.data(), kInt64, {sequences + 1}},
      {batch.seq_lens.data(), kInt64, {sequences}},
      {batch.context_lens.data(), kInt64, {sequences}},
      {batch.block_table.data(), kInt64, {sequences, batch.table_width}},
      {batch.rows.data(), kInt64, {static_cast<int64_t>(batch.rows.size())}},
  };
  inputs.insert(inputs.end(), pool_.layers().begin(), pool_.layers().end());
  preparing.end();
  const StepTrace step(batch.facts);
  Results results = run_graph_(inputs);
  const Array& logits = results.array(0);
  if (logits.scalar_type != kFloat32 ||
      logits.shape !=
          std::vector<int64_t>{static_cast<int64_t>(batch.rows.size()), limits_.vocab_size})
    throw Error(INGOT_FAILED, "generated code gave logits of an unexpected size");
  return results;
}

// Of a large vocabulary a token takes up to milliseconds: those of several jobs are sampled side by
// side.
void Engine::sample(Batch& batch, const float* logits) const {
  const HostTrace sampling("sample");
#pragma omp parallel for schedule(dynamic) if (batch.shares.size() > 1)
  for (Share& share : batch.shares) {
    if (share.job->take_logits || share.rows == 0) continue;
    share.error = failure_of([&] {
      const float* row = logits + share.first_row * limits_.vocab_size;
      share.token = share.job->sampler->sample(row, limits_.vocab_size);
    });
  }
}

void Engine::settle(const Batch& batch, const float* logits) {
  for (const Share& share : batch.shares)
    if (const auto error =
            failure_of([&] { settle(share, logits + share.first_row * limits_.vocab_size); }))
      fail(*share.job, *error);
}

// Of several jobs, whose fault is it? None has advanced: each is tried again, alone.
void Engine::settle_failure(const Batch& batch, const Error& error) {
  if (batch.shares.size() == 1)
    fail(*batch.shares[0].job, error);
  else
    alone_ = static_cast<int64_t>(batch.shares.size());
}

void Engine::settle(const Share& share, const float* rows) {
  Job& job = *share.job;
  job.sequence->length += share.count;
  job.fed += share.count;
  if (job.take_logits) {
    const HostTrace taking("take logits");
    if (share.rows) job.take_logits(rows, share.rows);
    if (job.fed == job.tokens.size()) finish(job);
  } else if (share.error) {
    throw *share.error;
  } else if (share.token) {
    settle_generated(job, *share.token);
  }
}

void Engine::settle_generated(Job& job, int64_t token) {
  job.last_token = now();
  if (job.made_count == 0) job.first_token = job.last_token;
  if (std::find(job.stop_tokens.begin(), job.stop_tokens.end(), token) != job.stop_tokens.end())
    return finish(job);
  job.made.push_back(token);
  job.made_count++;
  job.tokens.push_back(token);
  if (job.made_count == job.max_new_tokens) finish(job);
}

void Engine::finish(Job& job) {
  if (job.made_count && job.fed < job.tokens.size()) job.sequence->pending = job.tokens.back();
  job.finished = true;
}

// Of a call that ends early its session keeps what the caller saw: the prompt and `seen` tokens,
// the last of which waits outside the cache, as after any generation; without any, what it held
// before. The step thread runs ahead of a slow caller: the rest is forgotten.
void Engine::rewind(Job& job, int64_t seen) {
  Sequence& sequence = *job.sequence;
  const int64_t last = job.prompt_count + seen - 1;
  sequence.length = job.start_length + (seen ? last : 0);
  sequence.pending.reset();
  if (seen)
    sequence.pending = job.tokens[last];
  else if (job.had_pending)
    sequence.pending = job.tokens[0];
  const auto kept = sequence.blocks.begin() + blocks_of(sequence.length);
  pool_.give_back(std::span(kept, sequence.blocks.end()));
  sequence.blocks.erase(kept, sequence.blocks.end());
}

void Engine::trace(const Job& job) {
  const double end = job.made_count ? job.last_token : now();
  const double first = job.made_count ? job.first_token : 0;
  trace_request(nanoseconds(job.submitted), nanoseconds(end),
                {job.prompt_count, job.made_count, nanoseconds(first)});
}

// Its blocks go back at once, so that others need not fail for want of them.
void Engine::fail(Job& job, const Error& error) {
  rewind(job, job.made_count);
  job.error = error;
  job.finished = true;
}
}  // namespace ingot

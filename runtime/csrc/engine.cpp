#include "engine.h"

#include <unistd.h>

#include <algorithm>

#include "clock.h"
#include "team.h"

namespace ingot {
namespace {
constexpr int64_t kStepTokens = 256;  // of all prompts in one step: bounds latency and temporaries
constexpr int64_t kStepLogitRows = 64;       // of one job: a row is as long as the vocabulary
constexpr int32_t kInt64 = 4, kFloat32 = 6;  // c10::ScalarType

double now() { return static_cast<double>(now_ns()) * 1e-9; }
int64_t nanoseconds(double seconds) { return static_cast<int64_t>(seconds * 1e9); }
}  // namespace

Engine::Engine(Graph& graph, KvPool& pool, const EngineLimits& limits)
    : graph_(graph), pool_(pool), limits_(limits), process_(getpid()), thread_([this] {
        loop();
      }) {}

Engine::~Engine() {
  {
    std::lock_guard lock(mutex_);
    closing_ = true;
  }
  work_.notify_all();
  thread_.join();
}

bool Engine::in_child() const { return getpid() != process_; }

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
  if (prompt + job.max_new_tokens > limits_.cache_tokens)
    throw Error(INGOT_NO_SPACE, "the KV cache is full: it holds " +
                                    std::to_string(limits_.cache_tokens) + " tokens, asked are " +
                                    asked + "; open the package with a larger kv_tokens");
}

void Engine::run(Job& job, const std::function<bool(int64_t)>& take) {
  if (in_child())
    bad_input("this package was opened before fork(); open it again in the child process");
  std::unique_lock lock(mutex_);
  Sequence& sequence = *job.sequence;
  if (sequence.job)
    bad_input("the session is busy with another call; wait for its end, or make a second session");
  if (job.tokens.empty()) bad_input("the prompt is empty; give at least one token");
  if (sequence.pending) job.tokens.insert(job.tokens.begin(), *sequence.pending);
  check(job);
  job.start_length = sequence.length;
  job.prompt_count = static_cast<int64_t>(job.tokens.size());
  sequence.pending.reset();
  sequence.job = &job;
  job.submitted = now();
  jobs_.push_back(&job);
  work_.notify_all();
  for (;;) {
    progress_.wait(lock, [&] { return !job.made.empty() || job.finished; });
    if (job.made.empty()) break;
    const int64_t token = job.made.front();
    job.made.pop_front();
    if (job.cancelled) continue;
    job.taken++;
    lock.unlock();
    const bool go_on = take(token);
    lock.lock();
    if (!go_on) job.cancelled = true;
  }
  if (job.cancelled && job.taken) rewind(job);
  trace(job);
  sequence.job = nullptr;  // from here it may be gone: release() waits for this
  progress_.notify_all();
  if (job.error) throw *job.error;
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

void Engine::loop() {
  Team team(limits_.threads);
  std::unique_lock lock(mutex_);
  for (;;) {
    work_.wait(lock, [&] { return closing_ || !jobs_.empty(); });
    if (closing_) return;
    Batch batch = assemble();
    if (!batch.shares.empty()) {
      lock.unlock();
      if (batch.ended) wake_callers();
      std::optional<Error> error;
      std::optional<Results> results;
      try {
        {
          const HostTrace choosing("choose threads");
          team.assemble();
        }
        results.emplace(execute(batch));
      } catch (const Error& caught) {
        error = caught;
      } catch (const std::exception& caught) {
        error = Error(INGOT_FAILED, std::string("the step failed: ") + caught.what());
      }
      lock.lock();
      if (error)
        for (const Share& share : batch.shares) fail(*share.job, *error);
      else
        settle(batch, static_cast<const float*>(results->array(0).data));
    }
    drop_finished();
    lock.unlock();
    wake_callers();
    lock.lock();
  }
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
  int64_t budget = kStepTokens;
  for (Job* job : jobs_) {
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
      fail(*job, Error(INGOT_NO_SPACE,
                       "the KV cache is full; close a session, or open the package with a larger "
                       "kv_tokens"));
      continue;
    }
    budget -= count;
    add(batch, *job, count);
  }
  batch.ended = drop_finished();
  std::rotate(jobs_.begin(), jobs_.begin() + (jobs_.empty() ? 0 : 1), jobs_.end());
  if (!batch.shares.empty() && batch.rows.empty()) batch.rows.push_back(0);  // R is at least 1
  if (tracing()) describe(batch);
  return batch;
}

bool Engine::reserve(Sequence& sequence, int64_t count) {
  const int64_t needed = (sequence.length + count + limits_.block_size - 1) / limits_.block_size;
  while (static_cast<int64_t>(sequence.blocks.size()) < needed) {
    const int64_t block = pool_.take();
    if (block < 0) return false;
    sequence.blocks.push_back(block);
  }
  return true;
}

void Engine::add(Batch& batch, Job& job, int64_t count) {
  const Sequence& sequence = *job.sequence;
  const int64_t start = batch.query_start.back(), total = static_cast<int64_t>(job.tokens.size());
  Share share{&job, count, static_cast<int64_t>(batch.rows.size()), 0};
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
  batch.table_width = std::max<int64_t>(batch.table_width, sequence.blocks.size());
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
    std::copy(blocks.begin(), blocks.end(), batch.block_table.begin() + s * batch.table_width);
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
  Results results = graph_.run(inputs);
  const Array& logits = results.array(0);
  if (logits.scalar_type != kFloat32 ||
      logits.shape !=
          std::vector<int64_t>{static_cast<int64_t>(batch.rows.size()), limits_.vocab_size})
    throw Error(INGOT_FAILED, "generated code gave logits of an unexpected size");
  return results;
}

void Engine::settle(const Batch& batch, const float* logits) {
  for (const Share& share : batch.shares) {
    Job& job = *share.job;
    job.sequence->length += share.count;
    job.fed += share.count;
    const float* rows = logits + share.first_row * limits_.vocab_size;
    if (job.take_logits) {
      const HostTrace taking("take logits");
      if (share.rows) job.take_logits(rows, share.rows);
      if (job.fed == job.tokens.size()) finish(job);
    } else if (share.rows) {
      settle_generated(job, rows);
    }
  }
}

void Engine::settle_generated(Job& job, const float* logits) {
  HostTrace sampling("sample");
  const int64_t token = job.sampler->sample(logits, limits_.vocab_size);
  sampling.end();
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

// The step thread runs ahead of a slow caller. What a caller that stopped has not seen is
// forgotten; the last token that it saw waits outside the cache, as after any generation.
void Engine::rewind(Job& job) {
  const int64_t last = job.prompt_count + job.taken - 1;
  job.sequence->length = job.start_length + last;
  job.sequence->pending = job.tokens[last];
}

void Engine::trace(const Job& job) {
  const double end = job.made_count ? job.last_token : now();
  const double first = job.made_count ? job.first_token : 0;
  trace_request(nanoseconds(job.submitted), nanoseconds(end),
                {job.prompt_count, job.made_count, nanoseconds(first)});
}

void Engine::fail(Job& job, const Error& error) {
  job.error = error;
  job.finished = true;
}
}  // namespace ingot

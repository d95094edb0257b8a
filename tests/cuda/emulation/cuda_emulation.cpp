#include "cuda_emulation.h"

#include <dlfcn.h>

#include <cstdio>
#include <memory>
#include <vector>

// Goes on on another stack, from where that was left, and leaves its own in *from: what a function
// must preserve is kept there (System V ABI for x86-64). swapcontext would ask the kernel for the
// signal mask each time, which took most of a test's time.
extern "C" [[gnu::visibility("hidden")]] void ingot_switch_stack(void** from, void* to);
asm(R"(
.text
.hidden ingot_switch_stack
.globl ingot_switch_stack
ingot_switch_stack:
  pushq %rbp
  pushq %rbx
  pushq %r12
  pushq %r13
  pushq %r14
  pushq %r15
  movq %rsp, (%rdi)
  movq %rsi, %rsp
  popq %r15
  popq %r14
  popq %r13
  popq %r12
  popq %rbx
  popq %rbp
  ret
)");

namespace ingot::emulation {
namespace {

constexpr int kWarp = 32;
constexpr size_t kStackBytes = 1 << 18;
constexpr unsigned char kUnwritten = 0xff;  // NaN as float, bfloat16 and float16
constexpr size_t kGuardBytes = 4096;        // behind shared memory: what is written there is found

struct Copy {
  void* to;
  const void* from;
  int bytes, bytes_of_zero;
};

struct Fiber {
  Thread place;
  std::unique_ptr<char[]> stack{new char[kStackBytes]};
  void* left_at;  // of its stack
  bool done = true;
  std::vector<Copy> open;                    // not committed
  std::vector<std::vector<Copy>> committed;  // groups, the oldest first
};

// Threads that wait for each other: `generation` rises when all have come.
struct Barrier {
  int size = 0, arrived = 0;
  uint64_t generation = 0;
};

struct Warp {
  Barrier barrier;
  // Two sets in turn: a quick lane may give for the next collective while others still read.
  Given given[2][kWarp];
};

struct Block {
  std::vector<Fiber> fibers;
  std::vector<Warp> warps;
  Barrier barrier;
  std::vector<unsigned char> shared;
  size_t shared_bytes = 0;  // of these; the guard is the rest
  bool backward = false;
  void* scheduler;  // where its stack was left
  int running = -1;
  bool progress = false;
  const std::function<void()>* body = nullptr;
};
thread_local Block t_block;

[[noreturn]] void end(const char* why) {
  fprintf(stderr, "emulation: %s\n", why);
  abort();
}

Fiber& running() { return t_block.fibers[t_block.running]; }
Warp& warp() { return t_block.warps[t_block.running / kWarp]; }

void yield() { ingot_switch_stack(&running().left_at, t_block.scheduler); }

void release(Barrier& barrier) {
  barrier.arrived = 0;
  barrier.generation++;
  t_block.progress = true;
}

void wait(Barrier& barrier) {
  const uint64_t mine = barrier.generation;
  if (++barrier.arrived == barrier.size) return release(barrier);
  t_block.progress = true;
  while (barrier.generation == mine) yield();
}

// A thread that has ended waits at no barrier (CUDA: exited threads count as arrived).
void leave(Barrier& barrier) {
  barrier.size--;
  if (barrier.size > 0 && barrier.arrived == barrier.size) release(barrier);
}

void enter() {
  (*t_block.body)();
  leave(t_block.barrier);
  if (warp().barrier.arrived > 0) end("a lane has ended that its warp waits for");
  warp().barrier.size--;
  running().done = true;
  t_block.progress = true;
  yield();
}

void start(Fiber& fiber) {
  // As if enter() were called: it finds its stack 8 bytes off a multiple of 16.
  const auto end = reinterpret_cast<uintptr_t>(fiber.stack.get() + kStackBytes) & ~uintptr_t{15};
  auto* top = reinterpret_cast<void**>(end - 16);
  *top = reinterpret_cast<void*>(enter);
  fiber.left_at = top - 6;  // registers, of any value
  fiber.done = false;
  fiber.open.clear();
  fiber.committed.clear();
}

bool backward() {
  const char* order = getenv("INGOT_EMULATION_ORDER");
  return order != nullptr && strcmp(order, "backward") == 0;
}

// A warp's fibers, each until it waits, again and again until all wait for other warps. Returns how
// many have not ended.
int run_warp(int first, int count) {
  Block& block = t_block;
  int left = 0;
  do {
    block.progress = false;
    left = 0;
    for (int i = 0; i < count; i++) {
      block.running = first + (block.backward ? count - 1 - i : i);
      if (running().done) continue;
      ingot_switch_stack(&block.scheduler, running().left_at);
      left += !running().done;
    }
  } while (block.progress);
  return left;
}

// Every fiber to its end. Warps come as far apart as barriers let them: what one does before others
// have read what they need is a race that then shows.
void run_block() {
  Block& block = t_block;
  const int count = static_cast<int>(block.fibers.size());
  const int warps = static_cast<int>(block.warps.size());
  for (int left = count, before = count + 1; left > 0;) {
    const uint64_t barriers = block.barrier.generation;
    left = 0;
    for (int i = 0; i < warps; i++) {
      const int first = (block.backward ? warps - 1 - i : i) * kWarp;
      left += run_warp(first, min(kWarp, count - first));
    }
    if (left == 0) break;
    const bool progress = left < before || block.barrier.generation != barriers;
    before = left;
    if (progress) continue;
    fprintf(stderr, "emulation: %d threads of a block wait for others that never come\n", left);
    abort();
  }
}

// The limits of every GPU that the kernels are compiled for (CUDA C++ Programming Guide, "Compute
// Capabilities"): sm_80's code runs on 8.6 and 8.9 too, whose blocks have the least shared memory.
void check_launch(dim3 grid, dim3 block, size_t shared_bytes) {
  constexpr unsigned kMostBlocks = 65535;                            // along y and z
  constexpr size_t kSharedBytes = 99 << 10, kStaticBytes = 1 << 10;  // of these the most in use
  const bool empty = min({grid.x, grid.y, grid.z, block.x, block.y, block.z}) == 0;
  if (!empty && grid.x <= INT32_MAX && grid.y <= kMostBlocks && grid.z <= kMostBlocks &&
      block.x * block.y * block.z <= 1024 && shared_bytes + kStaticBytes <= kSharedBytes) {
    return;
  }
  fprintf(stderr, "emulation: some GPU refuses %u x %u x %u blocks of %u threads, %zu bytes each\n",
          grid.x, grid.y, grid.z, block.x * block.y * block.z, shared_bytes);
  abort();
}

void perform(const Copy& copy) {
  memcpy(copy.to, copy.from, copy.bytes);
  memset(static_cast<char*>(copy.to) + copy.bytes, 0, copy.bytes_of_zero);
}

void wait_for_warp() {
  if (warp().barrier.size < kWarp) end("a warp waits for a lane that is not there");
  wait(warp().barrier);
}

}  // namespace

Thread& current() { return running().place; }

const Given* exchange(const Given& given) {
  Warp& mine = warp();
  Given* all = mine.given[mine.barrier.generation % 2];
  all[t_block.running % kWarp] = given;
  wait_for_warp();
  for (int lane = 0; lane < kWarp; lane++) {
    if (all[lane].what != given.what) end("lanes of a warp do different things together");
  }
  return all;
}

void sync_block() { wait(t_block.barrier); }
void sync_warp() { wait_for_warp(); }
unsigned char* dynamic_shared() { return t_block.shared.data(); }

void expect_shared(const void* address) {
  const auto at = reinterpret_cast<uintptr_t>(address);
  const auto begin = reinterpret_cast<uintptr_t>(t_block.shared.data());
  if (at % 16 != 0) end("an address in shared memory is not a multiple of 16");
  if (at < begin || at + 16 > begin + t_block.shared_bytes) end("it is not in shared memory");
}

void copy_later(void* to, const void* from, int bytes, int bytes_of_zero) {
  expect_shared(to);
  if (reinterpret_cast<uintptr_t>(from) % 16 != 0) end("a copy is not from a multiple of 16");
  const Copy copy{to, from, bytes, bytes_of_zero};
  if (t_block.backward) return perform(copy);
  running().open.push_back(copy);
}
void commit_copies() {
  running().committed.push_back(std::move(running().open));
  running().open.clear();
}
void wait_copies(int groups_left) {
  auto& groups = running().committed;
  while (static_cast<int>(groups.size()) > groups_left) {
    for (const Copy& copy : groups.front()) perform(copy);
    groups.erase(groups.begin());
  }
}

void enqueue(void* stream, const std::function<void()>& work) {
  if (stream == nullptr) return work();
  using Enqueue = void (*)(void*, const std::function<void()>&);
  static const auto in_order = reinterpret_cast<Enqueue>(
      dlsym(dlopen("libcuda.so.1", RTLD_LAZY | RTLD_NOLOAD), "fake_cuda_enqueue"));
  in_order(stream, work);
}

void run(dim3 grid, dim3 block, size_t shared_bytes, const std::function<void()>& body) {
  check_launch(grid, block, shared_bytes);
  const int64_t blocks = static_cast<int64_t>(grid.x) * grid.y * grid.z;
  const int threads = static_cast<int>(block.x * block.y * block.z);
  const bool order = backward();
#pragma omp parallel for schedule(dynamic)
  for (int64_t b = 0; b < blocks; b++) {
    Block& mine = t_block;
    mine.body = &body;
    mine.fibers.resize(threads);
    mine.warps.assign((threads + kWarp - 1) / kWarp, {});
    mine.barrier = {threads};
    mine.shared.assign(shared_bytes + kGuardBytes, kUnwritten);
    mine.shared_bytes = shared_bytes;
    mine.backward = order;
    for (int t = 0; t < threads; t++) {
      Fiber& fiber = mine.fibers[t];
      const auto index = static_cast<unsigned>(t);
      fiber.place.thread = {index % block.x, index / block.x % block.y, index / block.x / block.y};
      fiber.place.block = {static_cast<unsigned>(b % grid.x),
                           static_cast<unsigned>(b / grid.x % grid.y),
                           static_cast<unsigned>(b / grid.x / grid.y)};
      fiber.place.block_size = block;
      fiber.place.grid_size = grid;
      mine.warps[t / kWarp].barrier.size++;
      start(fiber);
    }
    run_block();
    const auto written = [](unsigned char byte) { return byte != kUnwritten; };
    if (std::any_of(mine.shared.begin() + static_cast<ptrdiff_t>(shared_bytes), mine.shared.end(),
                    written)) {
      end("a block wrote beyond its shared memory");
    }
  }
}

}  // namespace ingot::emulation

// The scheduler of emulation.h. Never compiled with a sanitizer: what it does between threads is no race of the kernel's.
#include "emulation.h"

#include <ucontext.h>

#include <algorithm>
#include <cstdlib>
#include <memory>
#include <random>
#include <sstream>
#include <stdexcept>
#include <vector>

#include "guarded.h"

#if defined(RRSIS_EMULATION_TSAN)
extern "C" {
void* __tsan_get_current_fiber();
void* __tsan_create_fiber(unsigned);
void __tsan_destroy_fiber(void*);
void __tsan_switch_to_fiber(void*, unsigned);
void __tsan_acquire(void*);
void __tsan_release(void*);
}
#endif

#undef threadIdx
#undef blockIdx
#undef blockDim
#undef gridDim

namespace rk::emulation {
namespace {

// For functions in which other fibers run. noipa: GCC would otherwise see which registers these functions use themselves
// and have their callers keep values in the others, which those fibers change (-fipa-ra, part of -O2).
#if defined(__clang__)
#define RRSIS_SWITCHES __attribute__((noinline))
#else
#define RRSIS_SWITCHES __attribute__((noipa))
#endif

constexpr int kLanes = 32;
constexpr size_t kStack = size_t(256) << 10;

// What the sanitizer is told; nothing without it.
#if defined(RRSIS_EMULATION_TSAN)
void* sanitizer_fiber() { return __tsan_create_fiber(0); }
void* sanitizer_current() { return __tsan_get_current_fiber(); }
void sanitizer_destroy(void* fiber) { __tsan_destroy_fiber(fiber); }
void sanitizer_switch(void* fiber) { __tsan_switch_to_fiber(fiber, 1); }  // 1: a switch orders nothing
void acquire(void* token) { __tsan_acquire(token); }
void release(void* token) { __tsan_release(token); }
#else
void* sanitizer_fiber() { return nullptr; }
void* sanitizer_current() { return nullptr; }
void sanitizer_destroy(void*) {}
void sanitizer_switch(void*) {}
void acquire(void*) {}
void release(void*) {}
#endif

// Lanes of a warp, or warps of a block, that wait for each other.
struct Meeting {
  int arrived = 0;
  uint64_t round = 0;
  // For the sanitizer, one of each parity: with a single one, what the first to leave a barrier does before the next would
  // seem ordered before those that leave later.
  char barrier[2];
  const char* what = nullptr;
  Where where;
};

enum class State { kReady, kWaiting, kDone };

struct Fiber {
  Guarded stack{kStack, 64};
  void* registers[5];  // __builtin_setjmp's
  bool started = false;
  State state = State::kReady;
  int index = 0;
  uint3 thread{};
  const char* waits_for = "";
  Where waits_at;
  std::vector<std::vector<Copy>> groups;  // committed cp.async groups, the oldest first
  std::vector<Copy> open;
  void* sanitizer = sanitizer_fiber();
  ~Fiber() { sanitizer_destroy(sanitizer); }
};

struct Slot {
  uint64_t value;
  uint32_t a[4], b[2];
  float c[4];
  char row[16];
};

struct Warp {
  int lanes = 0;
  Meeting meeting;
  Slot slots[2][kLanes];  // two rounds: a lane may be in the next before all have left this one
  float results[2][kLanes][4];
};

struct Block {
  dim3 grid, block;
  uint3 index{};
  std::unique_ptr<Guarded> shared;
  std::vector<Warp> warps;
  Meeting meeting;
  int threads = 0;
  std::string error;
};

uint64_t schedule_seed = 0;
Block* now = nullptr;  // the running block, one at a time
Fiber* running = nullptr;
const std::function<void()>* thread_body = nullptr;
std::vector<std::unique_ptr<Fiber>> fibers;  // kept between blocks and launches
void* scheduler_registers[5];
void* scheduler_sanitizer = nullptr;
char launch_begin, launch_end;  // addresses alone matter: what the sanitizer orders

RRSIS_SWITCHES void jump(void** registers) { __builtin_longjmp(registers, 1); }

// Out of a fiber. The scheduler comes back through `run_fiber`.
RRSIS_SWITCHES void leave(Fiber& fiber) {
  if (__builtin_setjmp(fiber.registers) == 0) {
    sanitizer_switch(scheduler_sanitizer);
    jump(scheduler_registers);
  }
}

void fiber_main() {
  for (;;) {
    Fiber& self = *running;
    acquire(&launch_begin);
    (*thread_body)();
    release(&launch_end);
    self.state = State::kDone;
    leave(self);
  }
}

RRSIS_SWITCHES void start(Fiber& fiber) {
  ucontext_t context;
  getcontext(&context);
  context.uc_stack = {fiber.stack.data(), 0, kStack};
  context.uc_link = nullptr;
  makecontext(&context, fiber_main, 0);
  fiber.started = true;
  setcontext(&context);
}

RRSIS_SWITCHES void run_fiber(Fiber& fiber) {
  running = &fiber;
  if (__builtin_setjmp(scheduler_registers) == 0) {
    sanitizer_switch(fiber.sanitizer);
    if (!fiber.started) start(fiber);
    jump(fiber.registers);
  }
  running = nullptr;
}

std::string describe(const Fiber& fiber, const char* what, const Where& where) {
  std::ostringstream text;
  text << what << " at " << where.file_name() << ":" << where.line() << " (block " << now->index.x << "," << now->index.y << ","
       << now->index.z << ", thread " << fiber.index << ")";
  return text.str();
}

void wait_until(const Meeting& meeting, uint64_t round, const char* what, const Where& where) {
  Fiber& self = *running;
  self.waits_for = what;
  self.waits_at = where;
  while (meeting.round == round) {
    self.state = State::kWaiting;
    leave(self);
  }
}

void wake(int first, int count) {
  for (int i = first; i < first + count; ++i)
    if (fibers[i]->state == State::kWaiting) fibers[i]->state = State::kReady;
}

// Joins a meeting of `members` threads, which are fibers first, first + 1, ...; the last to arrive does `work` for all.
template <class Work>
uint64_t meet(Meeting& meeting, int first, int members, const char* what, const Where& where, const Work& work) {
  if (meeting.arrived == 0) {
    meeting.what = what;
    meeting.where = where;
  } else if (std::strcmp(meeting.what, what) != 0 || meeting.where.line() != where.line()) {
    std::ostringstream text;
    text << what << ", while others are in " << meeting.what << " at line " << meeting.where.line();
    fail(text.str().c_str(), where);
  }
  const uint64_t round = meeting.round;
  if (++meeting.arrived == members) {
    work(round);
    meeting.arrived = 0;
    ++meeting.round;
    wake(first, members);
  } else {
    wait_until(meeting, round, what, where);
  }
  return round;
}

Warp& my_warp() { return now->warps[running->index / kLanes]; }
int my_lane() { return running->index % kLanes; }

template <class Fill, class Work>
Slot* meet_lanes(const char* what, const Where& where, const Fill& fill, const Work& work) {
  Warp& warp = my_warp();
  Slot* slots = warp.slots[warp.meeting.round & 1];
  fill(slots[my_lane()]);
  meet(warp.meeting, running->index / kLanes * kLanes, warp.lanes, what, where, work);
  return slots;
}

// Chooses who runs: see set_schedule.
class Schedule {
 public:
  Schedule(uint64_t seed, uint64_t block, int warps) : shuffled_(seed != 0), random_(seed * 1000003 + block), warps_(warps) {
    style_ = shuffled_ ? random_() % 3 : 0;
    priority_.resize(warps);
    for (int i = 0; i < warps; ++i) priority_[i] = shuffled_ ? static_cast<int>(random_() % 1000) : i;
  }
  // Among warps that can run: with style 1 a fixed order, so that one warp runs ahead of the others wherever it can.
  int warp(const std::vector<int>& able) {
    if (!shuffled_) return able.front();
    if (style_ != 1) return able[random_() % able.size()];
    int best = able.front();
    for (int i : able)
      if (priority_[i] > priority_[best]) best = i;
    return best;
  }
  size_t lane(size_t able) { return shuffled_ ? random_() % able : 0; }
  // Whether another warp may come in before this one is stuck.
  bool interrupts() { return style_ == 2 && random_() % 16 == 0; }

 private:
  bool shuffled_;
  std::mt19937_64 random_;
  int warps_;
  uint64_t style_;
  std::vector<int> priority_;
};

void run_warp(int warp, Schedule& schedule) {
  std::vector<int> able;
  for (;;) {
    able.clear();
    for (int i = warp * kLanes; i < warp * kLanes + now->warps[warp].lanes; ++i)
      if (fibers[i]->state == State::kReady) able.push_back(i);
    if (able.empty() || !now->error.empty()) return;
    run_fiber(*fibers[able[schedule.lane(able.size())]]);
    if (schedule.interrupts()) return;
  }
}

void require_all_done() {
  for (int i = 0; i < now->threads && now->error.empty(); ++i)
    if (fibers[i]->state != State::kDone)
      now->error = describe(*fibers[i], fibers[i]->waits_for, fibers[i]->waits_at) + " waits for ever";
}

void prepare_fibers(const Block& block) {
  while (static_cast<int>(fibers.size()) < block.threads) fibers.push_back(std::make_unique<Fiber>());
  for (int i = 0; i < block.threads; ++i) {
    Fiber& fiber = *fibers[i];
    fiber.state = State::kReady;
    fiber.index = i;
    fiber.thread = {i % block.block.x, i / block.block.x % block.block.y, i / block.block.x / block.block.y};
    fiber.groups.clear();
    fiber.open.clear();
  }
}

void run_block(Block& block, uint64_t number) {
  now = &block;
  prepare_fibers(block);
  Schedule schedule(schedule_seed, number, static_cast<int>(block.warps.size()));
  std::vector<int> able;
  for (;;) {
    able.clear();
    for (int i = 0; i < block.threads; ++i)
      if (fibers[i]->state == State::kReady && (able.empty() || able.back() != i / kLanes)) able.push_back(i / kLanes);
    if (able.empty() || !block.error.empty()) break;
    run_warp(schedule.warp(able), schedule);
  }
  require_all_done();
  now = nullptr;
  if (!block.error.empty()) {
    fibers.clear();  // some are in the middle of a kernel
    throw std::runtime_error("emulated CUDA: " + block.error);
  }
}

void check_limits(dim3 grid, dim3 block, size_t shared_bytes) {
  const auto require = [](bool ok, const char* what) {
    if (!ok) throw std::runtime_error(std::string("emulated CUDA: ") + what);
  };
  require(static_cast<uint64_t>(block.x) * block.y * block.z <= 1024, "a block has more than 1024 threads");
  require(block.x % kLanes == 0, "the block's first dimension is not a multiple of 32");
  require(grid.x > 0 && grid.y > 0 && grid.z > 0, "the grid is empty");
  require(grid.x <= 0x7fffffffu && grid.y <= 65535 && grid.z <= 65535, "the grid is too large");
  require(shared_bytes <= shared_memory_limit(), "more shared memory than a block may ask for");
}

}  // namespace

uint3 thread_index() { return running->thread; }
uint3 block_index() { return now->index; }
dim3 block_size() { return now->block; }
dim3 grid_size() { return now->grid; }
char* shared_memory() { return now->shared->data(); }

size_t shared_memory_limit() {
  const char* asked = std::getenv("RRSIS_CUDA_EMULATION_SHARED");
  return (asked ? std::strtoull(asked, nullptr, 10) : 227) << 10;
}

void set_schedule(uint64_t seed) { schedule_seed = seed; }

void fail(const char* what, Where where) {
  now->error = describe(*running, what, where);
  for (;;) leave(*running);
}

void run_grid(dim3 grid, dim3 block, size_t shared_bytes, const std::function<void()>& body) {
  check_limits(grid, block, shared_bytes);
  thread_body = &body;
  scheduler_sanitizer = sanitizer_current();
  const uint64_t count = static_cast<uint64_t>(grid.x) * grid.y * grid.z;
  std::vector<uint64_t> order(count);
  for (uint64_t i = 0; i < count; ++i) order[i] = i;
  if (schedule_seed) std::shuffle(order.begin(), order.end(), std::mt19937_64(schedule_seed));
  for (uint64_t number : order) {
    Block current;
    current.grid = grid, current.block = block;
    current.index = {static_cast<unsigned>(number % grid.x), static_cast<unsigned>(number / grid.x % grid.y),
                     static_cast<unsigned>(number / grid.x / grid.y)};
    current.threads = static_cast<int>(block.x * block.y * block.z);
    current.warps.resize(current.threads / kLanes);
    for (Warp& warp : current.warps) warp.lanes = kLanes;
    // New for every block, so that nothing of the one before can be read, and no race with it be seen.
    current.shared = std::make_unique<Guarded>(shared_bytes, 128);
    std::memset(current.shared->data(), 0xff, shared_bytes);
    release(&launch_begin);
    run_block(current, number);
  }
  acquire(&launch_end);
}

void synchronise_block(Where where) {
  Meeting& meeting = now->meeting;
  char* barrier = &meeting.barrier[meeting.round & 1];
  release(barrier);
  meet(meeting, 0, now->threads, "__syncthreads", where, [](uint64_t) {});
  acquire(barrier);
}

void synchronise_warp(Where where) {
  Meeting& meeting = my_warp().meeting;
  char* barrier = &meeting.barrier[meeting.round & 1];
  release(barrier);
  meet_lanes("__syncwarp", where, [](Slot&) {}, [](uint64_t) {});
  acquire(barrier);
}

uint64_t exchange(uint64_t value, int from, const char* what, Where where) {
  const Slot* slots = meet_lanes(what, where, [&](Slot& slot) { slot.value = value; }, [](uint64_t) {});
  return slots[from].value;
}

uint32_t ballot(bool predicate, Where where) {
  const Slot* slots = meet_lanes("__ballot_sync", where, [&](Slot& slot) { slot.value = predicate; }, [](uint64_t) {});
  uint32_t bits = 0;
  for (int i = 0; i < kLanes; ++i) bits |= static_cast<uint32_t>(slots[i].value) << i;
  return bits;
}

// ldmatrix: lane i brings the address of row i % 8 of matrix i / 8; lane i gets, of each matrix, elements 2 (i % 4) and the
// next of row i / 4, or of column i / 4 where the matrices are transposed.
void load_matrices(uint32_t* registers, int count, bool transposed, const void* row, Where where) {
  const int lane = my_lane();
  const Slot* slots = meet_lanes(
      transposed ? "ldmatrix.trans" : "ldmatrix", where,
      [&](Slot& slot) { std::memcpy(slot.row, row, 16); }, [](uint64_t) {});
  for (int matrix = 0; matrix < count; ++matrix) {
    uint16_t pair[2];
    for (int i = 0; i < 2; ++i) {
      const int major = lane / 4, minor = lane % 4 * 2 + i;
      const int of_row = transposed ? minor : major, of_column = transposed ? major : minor;
      std::memcpy(&pair[i], slots[matrix * 8 + of_row].row + 2 * of_column, 2);
    }
    std::memcpy(&registers[matrix], pair, 4);
  }
}

void start_copy(Copy copy, Where where) {
  if (copy.source_bytes < 0 || copy.source_bytes > 16) fail("cp.async: more than 16 bytes", where);
  running->open.push_back(copy);
}

void commit_copies() {
  running->groups.push_back(std::move(running->open));
  running->open.clear();
}

bool take_due_copy(int groups_left, Copy* copy) {
  auto& groups = running->groups;
  while (static_cast<int>(groups.size()) > groups_left) {
    if (!groups.front().empty()) {
      *copy = groups.front().back();
      groups.front().pop_back();
      return true;
    }
    groups.erase(groups.begin());
  }
  return false;
}

namespace {

float element(Format format, const uint32_t* registers, int i) {
  const uint16_t bits = static_cast<uint16_t>(registers[i / 2] >> (16 * (i % 2)));
  if (format == Format::kBFloat16) return __bfloat162float(__nv_bfloat16(__nv_bfloat16_raw{bits}));
  return __half2float(__half(__half_raw{bits}));
}

// mma.sync.m16n8k16: register i of A holds row lane / 4 (+ 8 for i in 2, 3, 6, 7), column 2 (lane % 4) + i % 2 (+ 8 from 4 on);
// of B row 2 (lane % 4) + i % 2 (+ 8 from 2 on), column lane / 4; of C and D row lane / 4 (+ 8 from 2 on), column 2 (lane % 4) + i % 2.
void multiply_fragments(Format format, const Slot* slots, float (*results)[4]) {
  float a[16][16], b[16][8];
  for (int lane = 0; lane < kLanes; ++lane) {
    for (int i = 0; i < 8; ++i)
      a[lane / 4 + (i / 2 % 2 ? 8 : 0)][lane % 4 * 2 + i % 2 + (i >= 4 ? 8 : 0)] = element(format, slots[lane].a, i);
    for (int i = 0; i < 4; ++i) b[lane % 4 * 2 + i % 2 + (i >= 2 ? 8 : 0)][lane / 4] = element(format, slots[lane].b, i);
  }
  for (int lane = 0; lane < kLanes; ++lane)
    for (int i = 0; i < 4; ++i) {
      float sum = slots[lane].c[i];
      for (int k = 0; k < 16; ++k) sum += a[lane / 4 + (i >= 2 ? 8 : 0)][k] * b[k][lane % 4 * 2 + i % 2];
      results[lane][i] = sum;
    }
}

}  // namespace

void multiply_accumulate(Format format, float* d, const uint32_t* a, uint32_t b0, uint32_t b1, Where where) {
  Warp& warp = my_warp();
  const uint64_t round = warp.meeting.round;
  meet_lanes(
      "mma", where,
      [&](Slot& slot) {
        std::memcpy(slot.a, a, sizeof(slot.a));
        slot.b[0] = b0, slot.b[1] = b1;
        std::memcpy(slot.c, d, sizeof(slot.c));
      },
      [&](uint64_t at) { multiply_fragments(format, warp.slots[at & 1], warp.results[at & 1]); });
  std::memcpy(d, warp.results[round & 1][my_lane()], 4 * sizeof(float));
}

}  // namespace rk::emulation

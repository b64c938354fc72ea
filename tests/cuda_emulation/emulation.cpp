// The scheduler: the threads of a block as fibers of one operating-system thread.
//
// Compiled without ThreadSanitizer itself (fibers and scheduler never run at once) but with EMULATION_THREAD_SANITIZER,
// it tells ThreadSanitizer which fiber runs and what its barriers order.
#include <ucontext.h>

#include <algorithm>
#include <atomic>
#include <exception>
#include <memory>
#include <random>
#include <stdexcept>
#include <string>
#include <vector>

#include "cuda_runtime.h"

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#endif
#if defined(EMULATION_THREAD_SANITIZER)
#include <sanitizer/tsan_interface.h>
#endif

namespace emulation {
namespace {

constexpr std::size_t stack_bytes = 256 * 1024, shared_bytes = 100 * 1024;
alignas(128) unsigned char shared_memory[shared_bytes];

enum class State { ready, at_block_barrier, at_warp_barrier, done };

struct Fiber {
    ucontext_t context;
    std::unique_ptr<char[]> stack;
    State state = State::done;
    Place place;
    unsigned mask = 0;    // of the warp barrier that it waits at
    bool orders = false;  // whether that barrier orders memory: a shuffle's does not
    int predicate = 0;
    std::exception_ptr error;
#if defined(EMULATION_THREAD_SANITIZER)
    void* tsan = nullptr;
#endif
};

// What the lanes of a warp show each other. Atomic, so that ThreadSanitizer sees no race in the exchange itself.
struct Warp {
    std::atomic<std::uint64_t> slot[32];
    std::atomic<unsigned> votes{0};
    char order = 0;  // stands for the warp at ThreadSanitizer
};

class Block {
  public:
    static Block& instance() {
        static Block block;
        return block;
    }

    void run(dim3 grid, dim3 block, std::size_t shared, const std::function<void()>& body);
    Fiber& current() { return *fibers_[running_]; }
    int lane() const { return static_cast<int>(running_ % 32); }
    Warp& warp() { return *warps_[running_ / 32]; }
    void wait(State state, unsigned mask);

    int any = 0;

  private:
    static void enter();
    void grow(std::size_t threads);
    void prepare(std::size_t threads, dim3 size, dim3 at, dim3 grid, std::size_t shared);
    void to_fiber(std::size_t index);
    void to_scheduler(Fiber& from);
    bool step(std::size_t threads);
    void open_barriers(std::size_t threads);
    void acquire(void* what);
    void release(void* what);
    template <class Waits>
    void order(std::size_t first, std::size_t end, const Waits& waits, void* what);
    void rethrow(std::size_t threads);

    std::vector<std::unique_ptr<Fiber>> fibers_;
    std::vector<std::unique_ptr<Warp>> warps_;
    std::vector<std::size_t> turn_;
    std::size_t running_ = 0;
    char start_ = 0, end_ = 0, barrier_ = 0;  // stand at ThreadSanitizer for a block's start, end and barrier
    ucontext_t scheduler_{};
    const std::function<void()>* body_ = nullptr;
    std::mt19937 random_{20261120};
#if defined(EMULATION_THREAD_SANITIZER)
    void* tsan_scheduler_ = nullptr;
#endif
#if defined(__SANITIZE_ADDRESS__)
    const void* scheduler_stack_ = nullptr;
    std::size_t scheduler_stack_size_ = 0;
#endif
};

void Block::acquire([[maybe_unused]] void* what) {
#if defined(EMULATION_THREAD_SANITIZER)
    __tsan_acquire(what);
#endif
}

void Block::release([[maybe_unused]] void* what) {
#if defined(EMULATION_THREAD_SANITIZER)
    __tsan_release(what);
#endif
}

void Block::to_fiber(std::size_t index) {
    running_ = index;
    Fiber& fiber = *fibers_[index];
#if defined(__SANITIZE_ADDRESS__)
    void* fake = nullptr;
    __sanitizer_start_switch_fiber(&fake, fiber.stack.get(), stack_bytes);
#endif
#if defined(EMULATION_THREAD_SANITIZER)
    __tsan_switch_to_fiber(fiber.tsan, __tsan_switch_to_fiber_no_sync);
#endif
    swapcontext(&scheduler_, &fiber.context);
#if defined(__SANITIZE_ADDRESS__)
    __sanitizer_finish_switch_fiber(fake, nullptr, nullptr);
#endif
}

void Block::to_scheduler(Fiber& from) {
#if defined(__SANITIZE_ADDRESS__)
    void* fake = nullptr;
    __sanitizer_start_switch_fiber(from.state == State::done ? nullptr : &fake, scheduler_stack_,
                                   scheduler_stack_size_);
#endif
#if defined(EMULATION_THREAD_SANITIZER)
    __tsan_switch_to_fiber(tsan_scheduler_, __tsan_switch_to_fiber_no_sync);
#endif
    swapcontext(&from.context, &scheduler_);
#if defined(__SANITIZE_ADDRESS__)
    __sanitizer_finish_switch_fiber(fake, nullptr, nullptr);
#endif
}

void Block::enter() {
    Block& self = instance();
#if defined(__SANITIZE_ADDRESS__)
    __sanitizer_finish_switch_fiber(nullptr, &self.scheduler_stack_, &self.scheduler_stack_size_);
#endif
    Fiber& fiber = self.current();
    self.acquire(&self.start_);
    try {
        (*self.body_)();
    } catch (...) {
        fiber.error = std::current_exception();
    }
    self.release(&self.end_);
    fiber.state = State::done;
    self.to_scheduler(fiber);
}

void Block::wait(State state, unsigned mask) {
    Fiber& fiber = current();
    fiber.state = state;
    fiber.mask = mask;
    to_scheduler(fiber);
}

void Block::grow(std::size_t threads) {
    while (fibers_.size() < threads) {
        auto fiber = std::make_unique<Fiber>();
        fiber->stack = std::make_unique<char[]>(stack_bytes);
#if defined(EMULATION_THREAD_SANITIZER)
        fiber->tsan = __tsan_create_fiber(0);
#endif
        fibers_.push_back(std::move(fiber));
    }
    while (warps_.size() < (threads + 31) / 32) warps_.push_back(std::make_unique<Warp>());
    turn_.resize(threads);
    for (std::size_t i = 0; i < threads; ++i) turn_[i] = i;
}

void Block::prepare(std::size_t threads, dim3 size, dim3 at, dim3 grid, std::size_t shared) {
#if defined(__SANITIZE_ADDRESS__)
    __asan_unpoison_memory_region(shared_memory, shared_bytes);
#endif
    std::memset(shared_memory, 0xff, shared_bytes);
#if defined(__SANITIZE_ADDRESS__)
    __asan_poison_memory_region(shared_memory + (shared + 7) / 8 * 8, shared_bytes - (shared + 7) / 8 * 8);
#else
    static_cast<void>(shared);
#endif
    for (std::size_t i = 0; i < threads; ++i) {
        Fiber& fiber = *fibers_[i];
        const auto t = static_cast<unsigned>(i);
        fiber.place = {{t % size.x, t / size.x % size.y, t / size.x / size.y}, at, size, grid};
        fiber.state = State::ready;
        fiber.error = nullptr;
        getcontext(&fiber.context);
        fiber.context.uc_stack.ss_sp = fiber.stack.get();
        fiber.context.uc_stack.ss_size = stack_bytes;
        fiber.context.uc_link = nullptr;
        makecontext(&fiber.context, &Block::enter, 0);
    }
}

// Lets every fiber that can run do so once; false where none could.
bool Block::step(std::size_t threads) {
    std::shuffle(turn_.begin(), turn_.end(), random_);
    bool moved = false;
    for (std::size_t i = 0; i < threads; ++i) {
        if (fibers_[turn_[i]]->state != State::ready) continue;
        to_fiber(turn_[i]);
        moved = true;
    }
    return moved;
}

// Tells ThreadSanitizer that all before a barrier comes before all behind it. Told when the barrier opens, for all its
// fibers: else one that has run on to its next barrier would seem to come before one that has yet to leave this.
template <class Waits>
void Block::order([[maybe_unused]] std::size_t first, [[maybe_unused]] std::size_t end,
                  [[maybe_unused]] const Waits& waits, [[maybe_unused]] void* what) {
#if defined(EMULATION_THREAD_SANITIZER)
    for (const bool before : {true, false}) {
        for (std::size_t i = first; i < end; ++i) {
            if (!waits(i)) continue;
            __tsan_switch_to_fiber(fibers_[i]->tsan, __tsan_switch_to_fiber_no_sync);
            before ? release(what) : acquire(what);
        }
    }
    __tsan_switch_to_fiber(tsan_scheduler_, __tsan_switch_to_fiber_no_sync);
#endif
}

// A warp barrier opens when all lanes of its mask wait at it, the block's when all threads do.
void Block::open_barriers(std::size_t threads) {
    for (std::size_t first = 0; first < threads; first += 32) {
        const std::size_t end = std::min(first + 32, threads);
        for (std::size_t i = first; i < end; ++i) {
            if (fibers_[i]->state != State::at_warp_barrier) continue;
            const unsigned mask = fibers_[i]->mask;
            bool all = (mask >> (i - first) & 1u) != 0;
            for (std::size_t lane = 0; lane < 32 && all; ++lane) {
                if ((mask >> lane & 1u) == 0) continue;
                all = first + lane < end && fibers_[first + lane]->state == State::at_warp_barrier &&
                      fibers_[first + lane]->mask == mask;
            }
            if (!all) continue;
            const auto member = [&](std::size_t j) { return (mask >> (j - first) & 1u) != 0; };
            if (fibers_[i]->orders) order(first, end, member, &warps_[first / 32]->order);
            for (std::size_t j = first; j < end; ++j) {
                if (member(j)) fibers_[j]->state = State::ready;
            }
        }
    }
    const auto waits = [&](std::size_t i) { return fibers_[i]->state == State::at_block_barrier; };
    for (std::size_t i = 0; i < threads; ++i) {
        if (!waits(i)) return;
    }
    order(0, threads, waits, &barrier_);
    any = 0;
    for (std::size_t i = 0; i < threads; ++i) {
        any |= fibers_[i]->predicate;
        fibers_[i]->state = State::ready;
    }
}

void Block::rethrow(std::size_t threads) {
    for (std::size_t i = 0; i < threads; ++i) {
        if (fibers_[i]->error) std::rethrow_exception(fibers_[i]->error);
    }
}

void Block::run(dim3 grid, dim3 size, std::size_t shared, const std::function<void()>& body) {
    const std::size_t threads = std::size_t{size.x} * size.y * size.z;
    grow(threads);
    body_ = &body;
#if defined(EMULATION_THREAD_SANITIZER)
    tsan_scheduler_ = __tsan_get_current_fiber();
#endif
    for (unsigned z = 0; z < grid.z; ++z) {
        for (unsigned y = 0; y < grid.y; ++y) {
            for (unsigned x = 0; x < grid.x; ++x) {
                prepare(threads, size, {x, y, z}, grid, shared);
                release(&start_);
                for (;;) {
                    const bool moved = step(threads);
                    rethrow(threads);
                    open_barriers(threads);
                    if (moved) continue;
                    std::size_t done = 0;
                    bool ready = false;
                    for (std::size_t i = 0; i < threads; ++i) {
                        done += fibers_[i]->state == State::done ? 1 : 0;
                        ready = ready || fibers_[i]->state == State::ready;
                    }
                    if (ready) continue;
                    if (done == threads) break;
                    throw std::logic_error("emulation: " + std::to_string(threads - done) +
                                           " threads wait at a barrier that the others never reach");
                }
                acquire(&end_);
            }
        }
    }
}

}  // namespace

const Place& here() {
    return Block::instance().current().place;
}
int lane() {
    return Block::instance().lane();
}
unsigned char* shared() {
    return shared_memory;
}
void run(dim3 grid, dim3 block, std::size_t bytes, const std::function<void()>& body) {
    Block::instance().run(grid, block, bytes, body);
}

int block_barrier_or(int predicate) {
    Block& block = Block::instance();
    block.current().predicate = predicate != 0 ? 1 : 0;
    block.wait(State::at_block_barrier, 0);
    return block.any;
}
void block_barrier() {
    block_barrier_or(0);
}

void warp_barrier(unsigned mask) {
    Block& block = Block::instance();
    block.current().orders = true;
    block.wait(State::at_warp_barrier, mask);
    block.current().orders = false;
}

std::uint64_t exchange(unsigned mask, std::uint64_t value, int source) {
    Block& block = Block::instance();
    Warp& warp = block.warp();
    const unsigned own = 1u << block.lane();
    if ((mask & own) == 0) throw std::logic_error("emulation: a lane calls a shuffle whose mask leaves it out");
    if (source < 0 || source > 31) source = block.lane();
    if ((mask >> source & 1u) == 0) {
        throw std::logic_error("emulation: a shuffle reads lane " + std::to_string(source) + ", outside its mask");
    }
    warp.slot[block.lane()].store(value, std::memory_order_relaxed);
    block.wait(State::at_warp_barrier, mask);
    const std::uint64_t result = warp.slot[source].load(std::memory_order_relaxed);
    block.wait(State::at_warp_barrier, mask);
    return result;
}

unsigned ballot(unsigned mask, int predicate) {
    Block& block = Block::instance();
    Warp& warp = block.warp();
    const unsigned own = 1u << block.lane();
    if (predicate != 0) {
        warp.votes.fetch_or(own, std::memory_order_relaxed);
    } else {
        warp.votes.fetch_and(~own, std::memory_order_relaxed);
    }
    block.wait(State::at_warp_barrier, mask);
    const unsigned result = warp.votes.load(std::memory_order_relaxed) & mask;
    block.wait(State::at_warp_barrier, mask);
    return result;
}

}  // namespace emulation

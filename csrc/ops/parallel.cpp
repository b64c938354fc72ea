#include "ops/parallel.hpp"

#include <pthread.h>

#include <atomic>
#include <condition_variable>
#include <deque>
#include <exception>
#include <memory>
#include <mutex>
#include <new>
#include <string>
#include <thread>

#include "normscan/error.hpp"
#include "normscan/ops.hpp"
#include "ops/processors.hpp"

namespace normscan {
namespace {

// One call of parallel_for. The last one to leave it wakes the caller.
struct Job {
    Job(std::int64_t n, const std::function<void(std::int64_t)>& f) : count(n), body(f) {}

    const std::int64_t count;
    const std::function<void(std::int64_t)>& body;  // the caller outlives it: it waits until nobody is inside
    std::atomic<std::int64_t> next{0};
    std::mutex mutex;
    std::condition_variable idle;
    int inside = 0;  // workers inside, guarded by the mutex of the pool
    std::exception_ptr error;

    bool exhausted() const { return next.load(std::memory_order_relaxed) >= count; }

    void work() {
        for (std::int64_t i = next.fetch_add(1); i < count; i = next.fetch_add(1)) {
            try {
                body(i);
            } catch (...) {
                const std::lock_guard lock(mutex);
                if (!error) error = std::current_exception();
                next.store(count);
            }
        }
    }
};

class Pool : public std::enable_shared_from_this<Pool> {
  public:
    // Threads are detached and hold the pool themselves: nothing has to be joined at exit, where order is not ours.
    void start(int workers) {
        for (int i = 0; i < workers; ++i) std::thread([self = shared_from_this()] { self->loop(); }).detach();
    }

    void stop() {
        const std::lock_guard lock(mutex_);
        stopping_ = true;
        wake_.notify_all();
    }

    void run(Job& job) {
        {
            const std::lock_guard lock(mutex_);
            jobs_.push_back(&job);
            wake_.notify_all();
        }
        job.work();
        std::unique_lock lock(mutex_);
        std::erase(jobs_, &job);
        job.idle.wait(lock, [&] { return job.inside == 0; });
    }

  private:
    Job* take() {  // with the mutex held
        for (Job* job : jobs_) {
            if (!job->exhausted()) return job;
        }
        return nullptr;
    }

    void loop() {
        std::unique_lock lock(mutex_);
        while (true) {
            Job* job = nullptr;
            wake_.wait(lock, [&] { return stopping_ || (job = take()) != nullptr; });
            if (job == nullptr) return;
            ++job->inside;
            lock.unlock();
            job->work();
            lock.lock();
            if (--job->inside == 0) job->idle.notify_all();
        }
    }

    std::mutex mutex_;
    std::condition_variable wake_;
    std::deque<Job*> jobs_;
    bool stopping_ = false;
};

// Never destroyed: detached workers and atfork handlers may outlive every static.
struct State {
    std::mutex mutex;
    int threads = processors();
    std::shared_ptr<Pool> pool;
};

State& state();

// After fork the child has none of the workers: it forgets the pool (without a destructor, whose locks may be held by
// threads that are gone) and makes its own on first use.
void register_fork_handlers() {
    pthread_atfork([] { state().mutex.lock(); }, [] { state().mutex.unlock(); },
                   [] {
                       new (&state().pool) std::shared_ptr<Pool>();
                       state().mutex.unlock();
                   });
}

State& state() {
    static State* const instance = new State();
    return *instance;
}

std::shared_ptr<Pool> pool() {
    static const bool registered = (register_fork_handlers(), true);
    static_cast<void>(registered);
    State& s = state();
    const std::lock_guard lock(s.mutex);
    if (!s.pool && s.threads > 1) {
        s.pool = std::make_shared<Pool>();
        s.pool->start(s.threads - 1);
    }
    return s.pool;
}

}  // namespace

void set_threads(int n) {
    constexpr int most = 1024;
    if (n < 1 || n > most) {
        throw Error(Error::Kind::argument,
                    "set_threads: n is " + std::to_string(n) + ", expected 1.." + std::to_string(most));
    }
    State& s = state();
    const std::lock_guard lock(s.mutex);
    if (n == s.threads) return;
    if (s.pool) s.pool->stop();  // calls still running in it end on their own caller
    s.pool.reset();
    s.threads = n;
}

int threads() {
    State& s = state();
    const std::lock_guard lock(s.mutex);
    return s.threads;
}

void parallel_for(std::int64_t count, const std::function<void(std::int64_t)>& body) {
    const std::shared_ptr<Pool> workers = count > 1 ? pool() : nullptr;
    if (!workers) {
        for (std::int64_t i = 0; i < count; ++i) body(i);
        return;
    }
    Job job(count, body);
    workers->run(job);
    if (job.error) std::rethrow_exception(job.error);
}

}  // namespace normscan

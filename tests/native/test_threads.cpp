// The pool under stress: callers at once, a count that changes, a fork, and what a process may use.
#include <sys/wait.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <stdexcept>
#include <thread>

#include "arrays.hpp"
#include "ops/parallel.hpp"
#include "ops/processors.hpp"

using namespace normscan;

namespace {

// One call of several ops; the bytes of their results.
std::string work() {
    Array<float> a({2, 19, 19, 19}), b({2, 19, 19, 19}), map({2, 19, 19}), large({2, 111, 19}), blurred({2, 19, 19});
    Array<float> mean({19}), whitener({19, 19}), distances({2, 19, 19}), score({2});
    a.fill(1, 0.0), b.fill(2, 0.0), mean.fill(3), whitener.fill(4);
    distance(a, b, map, Metric::ssim);
    smooth(map, blurred, 2.0);
    resample(blurred, large);
    pool(large, score, PoolMethod::topk, 0.1);
    gaussian(a, mean, whitener, distances);
    std::string bytes;
    const auto add = [&](const Array<float>& x) {
        const std::vector<float> values = x.values();
        bytes.append(reinterpret_cast<const char*>(values.data()), values.size() * sizeof(float));
    };
    add(map), add(large), add(score), add(distances);
    return bytes;
}

TEST(threads_many_callers) {
    set_threads(1);
    const std::string expected = work();
    set_threads(3);
    std::vector<std::thread> callers;
    for (int i = 0; i < 4; ++i) {
        callers.emplace_back([&] {
            for (int k = 0; k < 5; ++k) CHECK(work() == expected);
        });
    }
    for (std::thread& caller : callers) caller.join();
}

TEST(threads_count_changes_meanwhile) {
    set_threads(1);
    const std::string expected = work();
    std::atomic<bool> done{false};
    std::vector<std::thread> callers;
    for (int i = 0; i < 3; ++i) {
        callers.emplace_back([&] {
            for (int k = 0; k < 5; ++k) CHECK(work() == expected);
        });
    }
    std::thread changer([&] {
        for (int n = 1; !done; n = n % 4 + 1) {
            set_threads(n);
            std::this_thread::sleep_for(std::chrono::milliseconds(1));
        }
    });
    for (std::thread& caller : callers) caller.join();
    done = true;
    changer.join();
}

TEST(threads_after_a_fork) {
    set_threads(3);
    const std::string expected = work();
    for (int i = 0; i < 3; ++i) {
        const pid_t child = fork();
        if (child == 0) {
            const bool same = work() == expected;  // with a pool of its own
            set_threads(2);
            _exit(same && work() == expected ? 0 : 1);
        }
        int status = -1;
        CHECK(waitpid(child, &status, 0) == child);
        CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 0);
        CHECK(work() == expected);
    }
}

// A child may be forked while other threads are in the middle of a call.
TEST(threads_fork_meanwhile) {
    set_threads(3);
    const std::string expected = work();
    std::atomic<bool> done{false};
    std::thread caller([&] {
        while (!done) CHECK(work() == expected);
    });
    for (int i = 0; i < 5; ++i) {
        const pid_t child = fork();
        if (child == 0) _exit(threads() == 3 ? 0 : 1);
        int status = -1;
        CHECK(waitpid(child, &status, 0) == child);
        CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 0);
    }
    done = true;
    caller.join();
}

TEST(threads_errors_reach_the_caller) {
    set_threads(3);
    std::atomic<int> calls{0};
    for (int i = 0; i < 20; ++i) {
        bool caught = false;
        try {
            parallel_for(100, [&](std::int64_t index) {
                ++calls;
                if (index == 37) throw std::runtime_error("37");
            });
        } catch (const std::runtime_error&) {
            caught = true;
        }
        CHECK(caught);
    }
    CHECK(calls >= 20);
    std::atomic<std::int64_t> sum{0};  // nested
    parallel_for(10, [&](std::int64_t i) { parallel_for(10, [&](std::int64_t k) { sum += 10 * i + k; }); });
    CHECK(sum == 4950);
    CHECK(check::message_of([] { set_threads(0); }) == "set_threads: n is 0, expected 1..1024");
}

// A made-up root of the file system.
class Root {
  public:
    Root() {
        std::string name = (std::filesystem::temp_directory_path() / "normscan_root_XXXXXX").string();
        CHECK(mkdtemp(name.data()) != nullptr);
        path_ = name;
    }
    ~Root() { std::filesystem::remove_all(path_); }
    Root(const Root&) = delete;
    Root& operator=(const Root&) = delete;

    Root& file(const std::string& name, const std::string& content) {
        std::filesystem::create_directories((path_ / name).parent_path());
        std::ofstream(path_ / name) << content;
        return *this;
    }
    int granted() const { return cgroup_processors(path_.string()); }

  private:
    std::filesystem::path path_;
};

TEST(threads_cgroup_2) {
    Root root;
    CHECK(root.granted() == 0);  // no cgroups at all
    root.file("proc/self/cgroup", "0::/user.slice/job\n");
    CHECK(root.granted() == 0);
    CHECK(root.file("sys/fs/cgroup/cpu.max", "max 100000\n").granted() == 0);
    CHECK(root.file("sys/fs/cgroup/user.slice/cpu.max", "350000 100000\n").granted() == 4);
    CHECK(root.file("sys/fs/cgroup/user.slice/job/cpu.max", "200000 100000\n").granted() == 2);
    CHECK(root.file("sys/fs/cgroup/user.slice/job/cpu.max", "900000 100000\n").granted() == 4);  // the narrowest holds
    CHECK(root.file("sys/fs/cgroup/cpu.max", "1000 100000\n").granted() == 1);
    for (const char* wrong : {"", "nonsense", "100000", "100000 0", "-1 100000"}) {
        CHECK(root.file("sys/fs/cgroup/cpu.max", wrong).granted() == 4);
    }
}

TEST(threads_cgroup_1) {
    Root root;
    root.file("proc/self/cgroup", "5:memory:/other\n4:cpu,cpuacct:/docker/abc\n0::/\n");
    CHECK(root.granted() == 0);
    // In a container the path is that of the host; its own limit stands at the root of what it sees.
    root.file("sys/fs/cgroup/cpu/cpu.cfs_quota_us", "-1\n").file("sys/fs/cgroup/cpu/cpu.cfs_period_us", "100000\n");
    CHECK(root.granted() == 0);
    CHECK(root.file("sys/fs/cgroup/cpu/cpu.cfs_quota_us", "250000\n").granted() == 3);
    root.file("sys/fs/cgroup/cpu/docker/abc/cpu.cfs_period_us", "50000\n");
    CHECK(root.file("sys/fs/cgroup/cpu/docker/abc/cpu.cfs_quota_us", "50000\n").granted() == 1);
}

}  // namespace

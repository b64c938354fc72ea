#include "ops/processors.hpp"

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <fstream>
#include <thread>

#ifdef __linux__
#include <sched.h>
#endif

namespace normscan {
namespace {

// Time granted in every period, in processors; 0 where either is no positive number ("max", -1, or no such file).
double share(std::istream& quota, std::istream& period) {
    double granted = 0.0, of = 0.0;
    if (!(quota >> granted) || !(period >> of) || !(granted > 0.0) || !(of > 0.0)) return 0.0;
    return granted / of;
}

double limit_2(const std::string& group) {
    std::ifstream file(group + "/cpu.max");
    return share(file, file);
}

double limit_1(const std::string& group) {
    std::ifstream quota(group + "/cpu.cfs_quota_us"), period(group + "/cpu.cfs_period_us");
    return share(quota, period);
}

// The narrowest limit of the group at `path` and of those above it. A path that is not there (inside a container it is
// the host's) has none.
double narrowest(const std::string& mount, std::string path, double (*limit)(const std::string&)) {
    double least = 0.0;
    while (true) {
        const double found = limit(mount + path);
        if (found > 0.0) least = least > 0.0 ? std::min(least, found) : found;
        if (path.empty()) return least;
        const std::size_t slash = path.rfind('/');
        path.resize(slash == std::string::npos ? 0 : slash);
    }
}

bool lists(const std::string& controllers, const std::string& name) {
    return ("," + controllers + ",").find("," + name + ",") != std::string::npos;
}

}  // namespace

int cgroup_processors(const std::string& root) {
    std::ifstream groups(root + "/proc/self/cgroup");
    double least = 0.0;
    for (std::string line; std::getline(groups, line);) {  // hierarchy:controllers:path
        const std::size_t first = line.find(':'), second = line.find(':', first + 1);
        if (first == std::string::npos || second == std::string::npos) continue;
        const std::string controllers = line.substr(first + 1, second - first - 1), path = line.substr(second + 1);
        double found = 0.0;
        if (controllers.empty()) {
            found = narrowest(root + "/sys/fs/cgroup", path, limit_2);
        } else if (lists(controllers, "cpu")) {
            found = narrowest(root + "/sys/fs/cgroup/cpu", path, limit_1);
        }
        if (found > 0.0) least = least > 0.0 ? std::min(least, found) : found;
    }
    return least > 0.0 ? static_cast<int>(std::ceil(std::min(least, 1e6))) : 0;
}

int processors() {
    int n = std::max(1, static_cast<int>(std::thread::hardware_concurrency()));
#ifdef __linux__
    cpu_set_t allowed;
    CPU_ZERO(&allowed);
    if (sched_getaffinity(0, sizeof allowed, &allowed) == 0) n = std::min(n, std::max(1, CPU_COUNT(&allowed)));
#endif
    const int granted = cgroup_processors();
    return granted > 0 ? std::min(n, granted) : n;
}

}  // namespace normscan

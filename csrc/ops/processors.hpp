// How many processors this process may use.
#pragma once

#include <string>

namespace normscan {

// What the machine has, and the affinity of the process and its cgroup allow: at least 1.
int processors();

// CPU time that the cgroups of this process grant, in whole processors rounded up; 0 when they set no limit. Versions 1
// and 2; the narrowest limit on the way up holds. `root` stands before /proc and /sys: another one for tests.
int cgroup_processors(const std::string& root = "");

}  // namespace normscan

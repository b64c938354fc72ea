// Runs every test, or those whose name contains the argument. 77: this processor lacks what NORMSCAN_CPU_ISA asks for.
#include <cstdlib>
#include <cstring>

#include "check.hpp"
#include "normscan/ops.hpp"

int main(int count, char** arguments) {
    const char* const asked = std::getenv("NORMSCAN_CPU_ISA");
    bool can = asked == nullptr;
    for (const std::string_view level : normscan::simd_levels()) can = can || level == asked;
    if (!can) return 77;
    int run = 0;
    for (const check::Test& test : check::tests()) {
        if (count > 1 && std::strstr(test.name, arguments[1]) == nullptr) continue;
        const int before = check::failures;
        test.run();
        ++run;
        if (check::failures != before) std::printf("FAILED %s\n", test.name);
    }
    std::printf("%s: %d tests, %d failed checks\n", normscan::simd_level().data(), run, check::failures.load());
    return run == 0 || check::failures > 0 ? 1 : 0;
}

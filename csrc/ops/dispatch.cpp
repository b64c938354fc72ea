#include "ops/dispatch.hpp"

#include <cstdlib>
#include <string>

#include "normscan/error.hpp"

namespace normscan {
namespace {

constexpr std::array<std::string_view, 3> level_names = {"baseline", "avx2", "avx512"};

bool runs_here(SimdLevel level) {
#ifdef NORMSCAN_X86_KERNELS
    __builtin_cpu_init();
    switch (level) {
        case SimdLevel::baseline:
            return true;
        case SimdLevel::avx2:
            return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("f16c");
        case SimdLevel::avx512:
            return runs_here(SimdLevel::avx2) && __builtin_cpu_supports("avx512f") &&
                   __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512bw") &&
                   __builtin_cpu_supports("avx512vl");
    }
    return false;
#else
    return level == SimdLevel::baseline;
#endif
}

SimdLevel decide() {
    const char* const asked = std::getenv("NORMSCAN_CPU_ISA");
    if (asked == nullptr || *asked == '\0') {
        if (runs_here(SimdLevel::avx512)) return SimdLevel::avx512;
        return runs_here(SimdLevel::avx2) ? SimdLevel::avx2 : SimdLevel::baseline;
    }
    const std::string found = "NORMSCAN_CPU_ISA is '" + std::string(asked) + "'";
    const auto level = named<SimdLevel>(level_names, asked);
    if (!level) throw Error(Error::Kind::argument, found + ", expected baseline, avx2 or avx512");
    if (!runs_here(*level)) {
        std::string can;
        for (const std::string_view name : simd_levels()) can.append(can.empty() ? "" : ", ").append(name);
        throw Error(Error::Kind::argument, found + ", which this processor cannot run; it can run: " + can);
    }
    return *level;
}

}  // namespace

SimdLevel level_in_use() {
    static const SimdLevel level = decide();  // a throw leaves it undecided, so that every use throws
    return level;
}

std::string_view simd_level() {
    return level_names[static_cast<std::size_t>(level_in_use())];
}

std::vector<std::string_view> simd_levels() {
    std::vector<std::string_view> names;
    for (std::size_t i = 0; i < level_names.size(); ++i) {
        if (runs_here(static_cast<SimdLevel>(i))) names.push_back(level_names[i]);
    }
    return names;
}

}  // namespace normscan

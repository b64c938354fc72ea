// Writes bundles of the fake engine, and has the C API, its wrapper and the example use them. The library finds the
// engine by itself, in normscan/ beside it. Argument: the example.
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <fstream>

#include "bundles.hpp"
#include "capi.h"

namespace {

BundleParts for_fake() {
    BundleParts parts;
    parts.manifest["precision"] = R"({"name": "fp32", "limits": [1.0, 1.0, 1.0], "accepted": {"engine": "fake"}})";
    return parts;
}

int example_failures(const std::string& example, const std::string& bundle, const Folder& work) {
    work.write("picture.ppm", "P6 # a comment\n2 1\n255\n" + std::string("\x33\x66\x99\x33\x66\x99"));
    work.write("short.pgm", "P5 2 2 255\n...");
    const std::string quiet = " 2>" + work.path("errors");
    const auto run = [&](const std::string& picture) {
        return std::system((example + " " + bundle + " " + work.path(picture) + " " + work.path("map.pgm") + " >" +
                            work.path("printed") + quiet)
                               .c_str());
    };
    if (run("short.pgm") == 0 || run("none.pgm") == 0 || run("picture.ppm") != 0) return 1;
    std::string word, decision;
    double score = 0.0;
    std::ifstream(work.path("printed")) >> word >> score >> word >> decision;
    std::string map(15, '\0');
    std::ifstream(work.path("map.pgm"), std::ios::binary).read(map.data(), 15);
    const bool good =
        std::abs(score - 0.2) < 1e-6 && decision == "normal" && map == "P5\n2 1\n255\n\x66\x66" + std::string(2, '\0');
    if (!good) std::fprintf(stderr, "the example printed score %g, decision %s\n", score, decision.c_str());
    return good ? 0 : 1;
}

}  // namespace

int main(int count, char** arguments) {
    const Folder bundle, newer, work;
    for_fake().write(bundle);
    BundleParts of_later = for_fake();
    of_later.manifest["schema"] = "2";
    of_later.write(newer);
    int failures = capi_failures(bundle.path().c_str(), newer.path().c_str()) + wrapper_failures(bundle.path().c_str());
    failures += count == 2 ? example_failures(arguments[1], bundle.path(), work) : 1;
    std::printf("C API: %d failed checks\n", failures);
    return failures == 0 ? 0 : 1;
}

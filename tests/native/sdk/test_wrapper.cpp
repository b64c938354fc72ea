// The C++17 wrapper over the C API.
#include <cmath>
#include <cstdio>
#include <normscan/normscan.hpp>

#include "capi.h"

using normscan::sdk::Channels;
using normscan::sdk::Picture;
using normscan::sdk::Session;

namespace {

int failures = 0;

void check(bool condition, int line) {
    if (condition) return;
    ++failures;
    std::fprintf(stderr, "%s:%d: %s\n", __FILE__, line, normscan_last_error());
}

#define CHECK(condition) check(condition, __LINE__)

template <class F>
normscan_status status_of(F&& f) {
    try {
        f();
    } catch (const normscan::sdk::Error& error) {
        return *error.what() == '\0' ? NORMSCAN_OK : error.status();
    }
    return NORMSCAN_OK;
}

}  // namespace

int wrapper_failures(const char* bundle) {
    Session session(bundle);
    const std::uint16_t grey[] = {26214, 26214};
    const float colour[] = {0.2f, 0.4f, 0.6f};
    std::vector<float> map(2);
    const auto one = session.score(Picture(grey, 2, 1, Channels::grey).map_to(map.data(), map.size()));
    CHECK(std::abs(one.score - 0.2) < 1e-6 && one.decision == false && std::abs(map[1] - 0.2f) < 1e-6f);
    const auto both = session.score({Picture(grey, 1, 1, Channels::grey), Picture(colour, 1, 1, Channels::bgr)});
    CHECK(both.size() == 2 && both[0].score == one.score && std::abs(both[1].score - 0.2) < 1e-6);
    CHECK(std::string(session.info().engine) == "fake");

    Session moved = std::move(session);
    moved.cancel();
    CHECK(status_of([&] { moved.score(Picture(grey, 0, 1, Channels::grey)); }) == NORMSCAN_ERROR_ARGUMENT);
    CHECK(status_of([] { Session("/nowhere"); }) == NORMSCAN_ERROR_BUNDLE);
    CHECK(status_of([&] { Session(bundle, {"unknown", "cpu", 0}); }) == NORMSCAN_ERROR_ENGINE);
    return failures;
}

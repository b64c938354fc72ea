// Sessions over the fake engine: scores that are known, pictures of every kind, what is refused, many threads.
#include "normscan/session.hpp"

#include <atomic>
#include <chrono>
#include <cmath>
#include <limits>
#include <thread>
#include <vector>

#include "bundles.hpp"
#include "check.hpp"

using namespace normscan;

namespace {

// A bundle of the fake engine, opened.
struct Opened {
    Folder folder;
    Session session;

    explicit Opened(BundleParts parts = {}) : session(open(folder, parts)) {}
    static Session open(const Folder& folder, BundleParts& parts) {
        parts.write(folder);
        return Session::open(folder.path(), {"fake", "cpu", 0});
    }
    Result score(const Picture& picture) const {
        Result result;
        session.score({&picture, 1}, {&result, 1});
        return result;
    }
    std::string refusal(const Picture& picture) const {
        return check::message_of([&] { score(picture); });
    }
};

bool near(double found, double expected) {
    return std::abs(found - expected) < 1e-6;
}

// 2 x 3 pixels of one colour with room between the rows, of which nothing must be read.
template <class T>
struct Flat {
    std::vector<T> values;
    Picture picture;

    Flat(Channels channels, std::vector<T> colour) {
        const std::size_t room = 5;
        for (int y = 0; y < 2; ++y) {
            for (int x = 0; x < 3; ++x) values.insert(values.end(), colour.begin(), colour.end());
            values.insert(values.end(), room, std::numeric_limits<T>::max());
        }
        picture = {
            values.data(), dtype_of<T>, channels, 3, 2, static_cast<std::int64_t>(values.size() / 2 * sizeof(T))};
    }
};

TEST(session_scores_every_kind_of_picture) {
    const Opened opened;
    // Half the mean of the channels: |x / 2 - x|.
    CHECK(near(opened.score(Flat<std::uint8_t>(Channels::grey, {102}).picture).score, 0.2));
    CHECK(near(opened.score(Flat<std::uint8_t>(Channels::rgb, {51, 102, 153}).picture).score, 0.2));
    CHECK(near(opened.score(Flat<std::uint16_t>(Channels::bgr, {13107, 26214, 39321}).picture).score, 0.2));
    CHECK(near(opened.score(Flat<float>(Channels::rgb, {0.2f, 0.4f, 0.6f}).picture).score, 0.2));
    CHECK(near(opened.score(Flat<std::uint8_t>(Channels::rgba, {51, 102, 153, 255}).picture).score, 0.2));
    CHECK(near(opened.score(Flat<float>(Channels::rgba, {0.2f, 0.4f, 0.6f, 0.5f}).picture).score, 0.1));
    CHECK(near(opened.score(Flat<std::uint16_t>(Channels::rgba, {65535, 65535, 65535, 0}).picture).score, 0.0));
    CHECK(opened.score(Flat<std::uint8_t>(Channels::grey, {102}).picture).decision == false);
    CHECK(opened.score(Flat<std::uint8_t>(Channels::grey, {204}).picture).decision == true);
}

// Blue is what the spec divides by ten: the order of channels shows.
TEST(session_knows_the_order_of_channels) {
    BundleParts parts;
    std::string& spec = parts.manifest["spec"];
    spec.replace(spec.find("\"std\": [1, 1, 1]"), 16, "\"std\": [1, 1, 10]");
    const Opened opened(parts);
    const double rgb = opened.score(Flat<std::uint8_t>(Channels::rgb, {255, 0, 0}).picture).score;
    CHECK(near(rgb, 1.0 / 6.0));
    CHECK(near(opened.score(Flat<std::uint8_t>(Channels::bgr, {255, 0, 0}).picture).score, 1.0 / 60.0));
    CHECK(near(opened.score(Flat<std::uint8_t>(Channels::rgba, {255, 0, 0, 255}).picture).score, rgb));
}

TEST(session_gives_maps_of_a_batch) {
    const Opened opened;
    std::vector<std::uint8_t> pixels(16 * 24);
    for (std::size_t i = 0; i < pixels.size(); ++i) pixels[i] = i % 24 < 12 ? 0 : 204;
    std::vector<float> map(pixels.size() + 1, -1.0f), small(6, -1.0f);
    Flat<std::uint8_t> flat(Channels::grey, {102});
    flat.picture.map = small.data();
    flat.picture.map_room = 6;
    const Picture wide = {pixels.data(), DType::uint8, Channels::grey, 24, 16, 0, map.data(), 16 * 24};
    const Picture batch[] = {wide, flat.picture};
    Result results[2];
    opened.session.score(batch, results);
    CHECK(near(results[0].score, 0.2) && near(results[1].score, 0.2));
    CHECK(near(map[0], 0.0) && near(map[23], 0.4) && near(map[16 * 24 - 1], 0.4) && map[16 * 24] == -1.0f);
    for (const float value : small) CHECK(near(value, 0.2));
    CHECK(opened.score(wide).score == results[0].score);
    CHECK(results[0].times.prepare > 0.0 && results[0].times.engine > 0.0 && results[0].times.score > 0.0);
    opened.session.score({}, {});
}

TEST(session_refuses_what_it_cannot_read) {
    const Opened opened;
    const std::uint16_t pixels[12] = {};
    float map[4];
    const Picture good = {pixels, DType::uint16, Channels::grey, 2, 2};
    CHECK(opened.refusal(good).empty());
    const auto refused = [&](const char* part, auto change) {
        Picture picture = good;
        change(picture);
        CHECK(check::has(opened.refusal(picture), part));
    };
    constexpr std::int64_t huge = std::numeric_limits<std::int64_t>::max();
    refused("picture 0: pixels is null", [](Picture& p) { p.pixels = nullptr; });
    refused("pixels are float64", [](Picture& p) { p.dtype = DType::float64; });
    refused("width is 0", [](Picture& p) { p.width = 0; });
    refused("height is -1", [](Picture& p) { p.height = -1; });
    refused("below 2^31 pixels", [](Picture& p) { p.width = p.height = 1 << 16; });
    refused("below 2^31 pixels", [](Picture& p) { p.width = huge; });
    refused("row_stride is 3 bytes, expected 0, or a multiple of 2", [](Picture& p) { p.row_stride = 3; });
    refused("row_stride is -4", [](Picture& p) { p.row_stride = -4; });
    refused("2 rows do not fit", [](Picture& p) { p.row_stride = huge - 1; });
    refused("pixels does not begin at a multiple of 2",
            [&](Picture& p) { p.pixels = reinterpret_cast<const char*>(pixels) + 1; });
    refused("the map has room for 3 floats, expected 4", [&](Picture& p) { p.map = map, p.map_room = 3; });

    const float numbers[] = {0.5f, std::numeric_limits<float>::quiet_NaN(), 1.5f};
    CHECK(opened.refusal({numbers, DType::float32, Channels::grey, 1, 1}).empty());
    for (const std::int64_t i : {1, 2}) {
        CHECK(
            check::has(opened.refusal({numbers + i, DType::float32, Channels::grey, 1, 1}), "row 0 has float pixels"));
    }
    CHECK(check::has(check::message_of([] { Session::open("/nowhere", {"", "cpu", -1}); }), "threads is -1"));
}

TEST(session_tells_what_the_engine_does_wrong) {
    const std::uint8_t pixel = 255;
    const Picture picture = {&pixel, DType::uint8, Channels::grey, 1, 1};
    const auto refused = [&](const std::string& line, const char* part) {
        BundleParts parts;
        parts.model += line + "\n";
        CHECK(check::has(Opened(parts).refusal(picture), part));
    };
    refused("break there is no current", "cannot be run on x [1,3,8,12] by fake 1: there is no current");
    refused("flat", "scorer: ");
    BundleParts parts;
    parts.model = "fake 1\nimage 1 0\nreconstruction 3e38 3e38\n";
    CHECK(check::has(Opened(parts).refusal(picture), "picture 0: the score is not a finite number"));
}

TEST(session_of_many_threads) {
    const Opened opened;
    std::atomic<int> wrong{0};
    std::vector<std::thread> threads;
    for (int t = 0; t < 8; ++t) {
        threads.emplace_back([&, t] {
            const Flat<std::uint8_t> flat(Channels::grey, {static_cast<std::uint8_t>(20 * (t + 1))});
            for (int i = 0; i < 50; ++i) wrong += !near(opened.score(flat.picture).score, 10.0 * (t + 1) / 255.0);
        });
    }
    for (std::thread& thread : threads) thread.join();
    CHECK(wrong == 0);
}

TEST(session_is_cancelled) {
    BundleParts parts;
    parts.model += "wait 300\n";
    Opened opened(parts);
    std::string message;
    std::thread scoring([&] { message = opened.refusal(Flat<std::uint8_t>(Channels::grey, {9}).picture); });
    std::this_thread::sleep_for(std::chrono::milliseconds(100));
    opened.session.cancel();
    scoring.join();
    CHECK(check::has(message, "cancelled"));
    CHECK(opened.refusal(Flat<std::uint8_t>(Channels::grey, {9}).picture).empty());  // it was for that call
}

}  // namespace

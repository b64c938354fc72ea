// The C API as C++17: handles that close themselves, exceptions (thrown by this header, in the caller's own program).
//
//   normscan::sdk::Session session("x.normscan");
//   auto found = session.score({data, width, height, normscan::sdk::Channels::rgb});
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "normscan/normscan.h"

namespace normscan::sdk {

// What a function of the C API says; `status` is one of NORMSCAN_ERROR_...
class Error : public std::runtime_error {
  public:
    Error(normscan_status status, const char* message) : std::runtime_error(message), status_(status) {}
    normscan_status status() const noexcept { return status_; }

  private:
    normscan_status status_;
};

inline void check(normscan_status status) {
    if (status != NORMSCAN_OK) throw Error(status, normscan_last_error());
}

// A library that was built for another header is refused.
inline void check_abi() {
    if (normscan_abi() == NORMSCAN_ABI) return;
    throw std::runtime_error("libnormscan " + std::string(normscan_version()) + " has the ABI " +
                             std::to_string(normscan_abi()) + ", this program was built for " +
                             std::to_string(NORMSCAN_ABI));
}

enum class Channels : std::int32_t {
    grey = NORMSCAN_GREY,
    rgb = NORMSCAN_RGB,
    bgr = NORMSCAN_BGR,
    rgba = NORMSCAN_RGBA
};

// A view of pixels that are the caller's: uint8, uint16 or float32. row_stride in bytes; 0: nothing between the rows.
class Picture {
  public:
    Picture(const std::uint8_t* pixels, std::int64_t width, std::int64_t height, Channels channels,
            std::int64_t row_stride = 0)
        : Picture(NORMSCAN_UINT8, pixels, width, height, channels, row_stride) {}
    Picture(const std::uint16_t* pixels, std::int64_t width, std::int64_t height, Channels channels,
            std::int64_t row_stride = 0)
        : Picture(NORMSCAN_UINT16, pixels, width, height, channels, row_stride) {}
    Picture(const float* pixels, std::int64_t width, std::int64_t height, Channels channels,
            std::int64_t row_stride = 0)
        : Picture(NORMSCAN_FLOAT32, pixels, width, height, channels, row_stride) {}

    // The map goes to `map`, [height][width] floats of the caller's.
    Picture& map_to(float* map, std::uint64_t room) {
        picture_.map = map;
        picture_.map_room = room;
        return *this;
    }
    const normscan_picture& get() const { return picture_; }

  private:
    Picture(std::int32_t type, const void* pixels, std::int64_t width, std::int64_t height, Channels channels,
            std::int64_t row_stride) {
        picture_.struct_size = sizeof picture_;
        picture_.value_type = type;
        picture_.channels = static_cast<std::int32_t>(channels);
        picture_.pixels = pixels;
        picture_.width = width;
        picture_.height = height;
        picture_.row_stride = row_stride;
    }

    normscan_picture picture_{};
};

struct Result {
    double score;
    std::optional<bool> decision;  // true: anomalous; nothing: the bundle has no threshold
    double prepare_seconds, engine_seconds, score_seconds;
};

struct Options {
    std::string engine;  // empty: what the bundle was accepted on, or the first that opens it
    std::string device = "auto";
    int threads = 0;  // 0: all cores
};

// May be used by many threads at once.
class Session {
  public:
    explicit Session(const std::string& bundle, const Options& options = {}) {
        check_abi();
        normscan_options asked{};
        asked.struct_size = sizeof asked;
        asked.threads = options.threads;
        asked.engine = options.engine.empty() ? nullptr : options.engine.c_str();
        asked.device = options.device.c_str();
        normscan_session* opened = nullptr;
        check(normscan_open(bundle.c_str(), &asked, &opened));
        session_.reset(opened);
    }

    // Its texts live as long as the session.
    normscan_info info() const {
        normscan_info info{};
        info.struct_size = sizeof info;
        check(normscan_get_info(session_.get(), &info));
        return info;
    }

    Result score(const Picture& picture) const {
        normscan_result result = empty();
        check(normscan_score(session_.get(), &picture.get(), 1, &result));
        return read(result);
    }

    std::vector<Result> score(const std::vector<Picture>& pictures) const {
        std::vector<normscan_picture> given;
        for (const Picture& picture : pictures) given.push_back(picture.get());
        std::vector<normscan_result> found(given.size(), empty());
        check(normscan_score(session_.get(), given.data(), given.size(), found.data()));
        std::vector<Result> results;
        for (const normscan_result& one : found) results.push_back(read(one));
        return results;
    }

    void cancel() { check(normscan_cancel(session_.get())); }

  private:
    struct Close {
        void operator()(normscan_session* session) const { normscan_close(session); }
    };

    static normscan_result empty() {
        normscan_result result{};
        result.struct_size = sizeof result;
        return result;
    }
    static Result read(const normscan_result& found) {
        Result result{found.score, std::nullopt, found.prepare_seconds, found.engine_seconds, found.score_seconds};
        if (found.decision != NORMSCAN_UNDECIDED) result.decision = found.decision == NORMSCAN_ANOMALOUS;
        return result;
    }

    std::unique_ptr<normscan_session, Close> session_;
};

}  // namespace normscan::sdk

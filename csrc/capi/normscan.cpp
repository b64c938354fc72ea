// The C API over Session: checks of pointers and struct sizes, exceptions to codes and a message.
#include "normscan/normscan.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <new>
#include <string>
#include <vector>

#include "normscan/error.hpp"
#include "normscan/session.hpp"
#include "ops/check.hpp"

struct normscan_session {
    normscan::Session session;
};

namespace {

using normscan::Error;
using normscan::fail;

// Of a fixed size, so that there is room to say that there is no memory.
thread_local char last_error[2048] = "";

normscan_status failed(normscan_status status, const char* message) noexcept {
    std::strncpy(last_error, message, sizeof last_error - 1);
    return status;
}

normscan_status status_of(Error::Kind kind) {
    switch (kind) {
        case Error::Kind::argument:
            return NORMSCAN_ERROR_ARGUMENT;
        case Error::Kind::config:
        case Error::Kind::bundle:
            return NORMSCAN_ERROR_BUNDLE;
        case Error::Kind::device:
        case Error::Kind::engine:
            return NORMSCAN_ERROR_ENGINE;
        case Error::Kind::picture:
            return NORMSCAN_ERROR_PICTURE;
        case Error::Kind::cancelled:
            return NORMSCAN_ERROR_CANCELLED;
    }
    return NORMSCAN_ERROR_INTERNAL;
}

template <class F>
normscan_status guarded(F&& body) noexcept {
    try {
        body();
        return NORMSCAN_OK;
    } catch (const Error& error) {
        return failed(status_of(error.kind()), error.what());
    } catch (const std::bad_alloc&) {
        return failed(NORMSCAN_ERROR_MEMORY, "there is no memory left");
    } catch (const std::exception& error) {
        return failed(NORMSCAN_ERROR_INTERNAL, error.what());
    } catch (...) {
        return failed(NORMSCAN_ERROR_INTERNAL, "an unknown exception");
    }
}

void check_pointer(const void* pointer, const char* name) {
    if (pointer == nullptr) fail(name, " is null, expected an address");
}

template <class Struct>
void check_struct(const Struct* pointer, const std::string& name) {
    check_pointer(pointer, name.c_str());
    if (pointer->struct_size != sizeof(Struct)) {
        fail(name, ": struct_size is ", pointer->struct_size, ", expected ", sizeof(Struct), " (ABI ", NORMSCAN_ABI,
             ")");
    }
}

std::string numbered(const char* name, std::size_t index) {
    return std::string(name) + "[" + std::to_string(index) + "]";
}

normscan::SessionOptions read_options(const normscan_options* options) {
    normscan::SessionOptions read;
    if (options == nullptr) return read;
    check_struct(options, "options");
    if (options->engine != nullptr) read.engine = options->engine;
    if (options->device != nullptr) read.device = options->device;
    read.threads = options->threads;
    return read;
}

normscan::Picture read_picture(const normscan_picture& picture, const std::string& name) {
    constexpr std::array types = {normscan::DType::uint8, normscan::DType::uint16, normscan::DType::float32};
    check_struct(&picture, name);
    if (picture.value_type < 0 || picture.value_type >= static_cast<int32_t>(types.size())) {
        fail(name, ": value_type is ", picture.value_type, ", expected NORMSCAN_UINT8, _UINT16 or _FLOAT32");
    }
    if (picture.channels < 0 || picture.channels >= static_cast<int32_t>(normscan::channel_names.size())) {
        fail(name, ": channels is ", picture.channels, ", expected NORMSCAN_GREY, _RGB, _BGR or _RGBA");
    }
    if (picture.reserved != 0) fail(name, ": reserved is ", picture.reserved, ", expected 0");
    constexpr std::uint64_t most = std::uint64_t{1} << 31;
    return {picture.pixels,
            types[static_cast<std::size_t>(picture.value_type)],
            static_cast<normscan::Channels>(picture.channels),
            picture.width,
            picture.height,
            picture.row_stride,
            picture.map,
            static_cast<std::int64_t>(std::min(picture.map_room, most))};
}

void fill(const normscan::Session& session, normscan_info& info) {
    const normscan::ScoringSpec& spec = session.spec();
    info = {};
    info.struct_size = sizeof info;
    info.input_channels = static_cast<int32_t>(spec.input.channels);
    info.input_width = spec.input.width;
    info.input_height = spec.input.height;
    if (spec.calibration) {
        info.has_threshold = 1;
        info.threshold = spec.calibration->threshold;
        info.calibration_count = spec.calibration->n;
        info.target_specificity = spec.calibration->target_specificity;
        info.specificity_low = spec.calibration->interval.first;
        info.specificity_high = spec.calibration->interval.second;
    }
    info.spread = session.spread();
    info.map_low = session.map_scale()[0];
    info.map_high = session.map_scale()[1];
    info.family = spec.family.c_str();
    info.precision = session.precision().c_str();
    info.engine = session.engine();
    info.engine_version = session.engine_version();
    info.notice = session.notice().c_str();
}

void score(const normscan::Session& session, const normscan_picture* pictures, std::size_t count,
           normscan_result* results) {
    std::vector<normscan::Picture> read;
    for (std::size_t i = 0; i < count; ++i) {
        read.push_back(read_picture(pictures[i], numbered("pictures", i)));
        check_struct(&results[i], numbered("results", i));
    }
    std::vector<normscan::Result> found(count);
    session.score(read, found);
    for (std::size_t i = 0; i < count; ++i) {
        const normscan::Result& one = found[i];
        results[i].decision =
            one.decision ? (*one.decision ? NORMSCAN_ANOMALOUS : NORMSCAN_NORMAL) : NORMSCAN_UNDECIDED;
        results[i].score = one.score;
        results[i].prepare_seconds = one.times.prepare;
        results[i].engine_seconds = one.times.engine;
        results[i].score_seconds = one.times.score;
    }
}

}  // namespace

uint32_t normscan_abi(void) {
    return NORMSCAN_ABI;
}

const char* normscan_version(void) {
    return NORMSCAN_VERSION;
}

const char* normscan_status_name(normscan_status status) {
    constexpr std::array names = {"ok", "argument", "bundle", "engine", "picture", "cancelled", "memory", "internal"};
    return status >= 0 && status < static_cast<normscan_status>(names.size()) ? names[static_cast<std::size_t>(status)]
                                                                              : "unknown";
}

const char* normscan_last_error(void) {
    return last_error;
}

normscan_status normscan_open(const char* bundle, const normscan_options* options, normscan_session** session) {
    return guarded([&] {
        check_pointer(session, "session");
        *session = nullptr;
        check_pointer(bundle, "bundle");
        *session = new normscan_session{normscan::Session::open(bundle, read_options(options))};
    });
}

void normscan_close(normscan_session* session) {
    delete session;
}

normscan_status normscan_get_info(const normscan_session* session, normscan_info* info) {
    return guarded([&] {
        check_pointer(session, "session");
        check_struct(info, "info");
        fill(session->session, *info);
    });
}

normscan_status normscan_score(const normscan_session* session, const normscan_picture* pictures, size_t count,
                               normscan_result* results) {
    return guarded([&] {
        check_pointer(session, "session");
        constexpr std::size_t most = normscan::Session::most_pictures;
        if (count > most) fail("count is ", count, ", expected at most ", most);
        if (count == 0) return;
        check_pointer(pictures, "pictures");
        check_pointer(results, "results");
        score(session->session, pictures, count, results);
    });
}

normscan_status normscan_cancel(normscan_session* session) {
    return guarded([&] {
        check_pointer(session, "session");
        session->session.cancel();
    });
}

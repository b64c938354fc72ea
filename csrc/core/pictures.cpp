#include "core/pictures.hpp"

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>

#include "ops/check.hpp"
#include "ops/parallel.hpp"

namespace normscan {
namespace {

constexpr std::int64_t most_pixels = (std::int64_t{1} << 31) - 1;
constexpr std::int64_t most_bytes = std::numeric_limits<std::ptrdiff_t>::max();
constexpr std::int64_t rows_per_task = 64;

std::int64_t element_bytes(DType dtype) {
    return dtype == DType::float32 ? 4 : dtype == DType::uint16 ? 2 : 1;
}

std::int64_t channels_of(const Picture& picture) {
    return picture.channels == Channels::grey ? 1 : picture.channels == Channels::rgba ? 4 : 3;
}

std::int64_t row_bytes(const Picture& picture) {
    return picture.width * channels_of(picture) * element_bytes(picture.dtype);
}

bool aligned(const void* address, std::int64_t bytes) {
    return reinterpret_cast<std::uintptr_t>(address) % static_cast<std::uintptr_t>(bytes) == 0;
}

// A colour as it is seen over black (python/normscan/data/read.py: _colour).
std::uint8_t over_black(std::uint8_t value, std::uint8_t alpha) {
    return static_cast<std::uint8_t>((value * alpha + 127) / 255);
}
std::uint16_t over_black(std::uint16_t value, std::uint16_t alpha) {
    return static_cast<std::uint16_t>((std::uint32_t{value} * alpha + 32767) / 65535);
}
float over_black(float value, float alpha) {
    return value * alpha;
}

}  // namespace

void check_picture(const Picture& picture, const std::string& where) {
    if (picture.pixels == nullptr) fail(where, "pixels is null, expected an address");
    if (picture.dtype != DType::uint8 && picture.dtype != DType::uint16 && picture.dtype != DType::float32) {
        fail(where, "pixels are ", dtype_name(picture.dtype), ", expected uint8, uint16 or float32");
    }
    const std::int64_t width = picture.width, height = picture.height, bytes = element_bytes(picture.dtype);
    if (width < 1 || height < 1 || width > most_pixels / height) {
        fail(where, "width is ", width, ", height is ", height, "; expected at least 1, and below 2^31 pixels");
    }
    const std::int64_t row = row_bytes(picture), stride = picture.row_stride;
    if (stride != 0 && (stride < row || stride % bytes != 0)) {
        fail(where, "row_stride is ", stride, " bytes, expected 0, or a multiple of ", bytes, " that is at least ",
             row);
    }
    if (stride != 0 && height > 1 && stride > (most_bytes - row) / (height - 1)) {
        fail(where, "row_stride is ", stride, " bytes: ", height, " rows do not fit into memory");
    }
    if (!aligned(picture.pixels, bytes)) fail(where, "pixels does not begin at a multiple of ", bytes, " bytes");
    if (picture.map == nullptr) return;
    if (picture.map_room < width * height) {
        fail(where, "the map has room for ", picture.map_room, " floats, expected ", width * height);
    }
    if (!aligned(picture.map, sizeof(float))) fail(where, "map does not begin at a multiple of 4 bytes");
}

PictureView::PictureView(const Picture& picture)
    : picture_(picture), row_stride_(picture.row_stride != 0 ? picture.row_stride : row_bytes(picture)) {
    const std::int64_t channels = picture.channels == Channels::grey ? 1 : 3;
    tensor_.data = const_cast<void*>(picture.pixels);  // it is marked as read-only
    tensor_.read_only = true;
    tensor_.dtype = picture.dtype;
    tensor_.rank = channels == 1 ? 2 : 3;
    tensor_.shape = {picture.height, picture.width, channels};
    tensor_.stride = {picture.height > 1 ? row_stride_ / element_bytes(picture.dtype) : 1,
                      picture.width > 1 ? channels : 1, 1};
    if (picture.channels == Channels::grey || picture.channels == Channels::rgb) return;
    if (picture.dtype == DType::uint8) {
        convert<std::uint8_t>();
    } else if (picture.dtype == DType::uint16) {
        convert<std::uint16_t>();
    } else {
        convert<float>();
    }
}

template <class T>
void PictureView::convert() {
    const std::int64_t width = picture_.width, height = picture_.height, from_channels = channels_of(picture_);
    copy_.resize(static_cast<std::size_t>(height * width * 3) * sizeof(T));
    tensor_.data = copy_.data();
    tensor_.stride[0] = height > 1 ? 3 * width : 1;
    const bool transparent = picture_.channels == Channels::rgba;
    parallel_for((height + rows_per_task - 1) / rows_per_task, [&](std::int64_t task) {
        for (std::int64_t y = task * rows_per_task; y < std::min((task + 1) * rows_per_task, height); ++y) {
            const auto* from =
                reinterpret_cast<const T*>(static_cast<const std::byte*>(picture_.pixels) + y * row_stride_);
            T* to = tensor_.as<T>() + y * 3 * width;
            for (std::int64_t x = 0; x < width; ++x, from += from_channels, to += 3) {
                for (int c = 0; c < 3; ++c) to[c] = transparent ? over_black(from[c], from[3]) : from[2 - c];
            }
        }
    });
}

std::string PictureView::refusal() const {
    if (picture_.dtype != DType::float32) return "";
    const std::int64_t count = picture_.width * channels_of(picture_);
    for (std::int64_t y = 0; y < picture_.height; ++y) {
        const auto* const row =
            reinterpret_cast<const float*>(static_cast<const std::byte*>(picture_.pixels) + y * row_stride_);
        bool inside = true;
        for (std::int64_t i = 0; i < count; ++i) inside &= row[i] >= 0.0f && row[i] <= 1.0f;  // false of a NaN
        if (!inside) {
            return "row " + std::to_string(y) + " has float pixels outside 0..1, expected finite values, 0 to 1";
        }
    }
    return "";
}

}  // namespace normscan

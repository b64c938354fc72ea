// Pixels to network input: grey or colour, resize, normalise. Blocks are rows.
#include <algorithm>
#include <cmath>
#include <vector>

#include "core/geometry.hpp"
#include "core/prepare.hpp"
#include "normscan/ops.hpp"
#include "ops/buffer.hpp"
#include "ops/check.hpp"
#include "ops/parallel.hpp"

namespace normscan {
namespace {

constexpr std::int64_t rows_per_task = 16;

// Weights of the source pixels of every target pixel: Pillow's BILINEAR (triangle filter, widened when shrinking).
struct Filter {
    std::vector<std::int64_t> first, count;
    std::vector<float> weights;  // `most` for each target pixel
    std::int64_t most;

    Filter(const Placement& place, std::int64_t side) {
        const double scale = place.extent / static_cast<double>(place.size), support = std::max(1.0, scale);
        most = static_cast<std::int64_t>(std::ceil(support)) * 2 + 1;
        weights.assign(static_cast<std::size_t>(most * place.size), 0.0f);
        for (std::int64_t i = 0; i < place.size; ++i) {
            const double centre = place.begin + (static_cast<double>(i) + 0.5) * scale;
            const auto begin = static_cast<std::int64_t>(std::max(0.0, centre - support + 0.5));
            const std::int64_t end = std::min(side, static_cast<std::int64_t>(centre + support + 0.5));
            first.push_back(begin);
            count.push_back(end - begin);
            fill(i, centre, support);
        }
    }
    const float* of(std::int64_t i) const { return weights.data() + i * most; }

  private:
    void fill(std::int64_t i, double centre, double support) {
        const auto at = static_cast<std::size_t>(i);
        std::vector<double> exact;
        double sum = 0.0;
        for (std::int64_t k = 0; k < count[at]; ++k) {
            const double distance = std::abs(static_cast<double>(first[at] + k) - centre + 0.5) / support;
            exact.push_back(std::max(0.0, 1.0 - distance));
            sum += exact.back();
        }
        for (std::size_t k = 0; k < exact.size(); ++k) {
            weights[at * static_cast<std::size_t>(most) + k] = static_cast<float>(exact[k] / sum);
        }
    }
};

// The picture as rows of floats in 0..1 with the channels of the network, one row at a time.
struct Source {
    const Tensor& image;
    std::int64_t width, channels, to_channels;
    float factor;

    template <class T>
    void read(std::int64_t y, float* to) const {
        const T* const row = image.as<const T>() + y * image.step(0);
        const std::int64_t step = image.step(1), channel = image.rank == 3 ? image.step(2) : 0;
        if (channels == to_channels && step == channels && (channels == 1 || channel == 1)) {
            for (std::int64_t i = 0; i < width * channels; ++i) to[i] = factor * static_cast<float>(row[i]);
            return;
        }
        for (std::int64_t x = 0; x < width; ++x, to += to_channels) {
            const T* const pixel = row + x * step;
            if (channels == 3 && to_channels == 1) {
                to[0] =
                    factor * (luma[0] * static_cast<float>(pixel[0]) + luma[1] * static_cast<float>(pixel[channel]) +
                              luma[2] * static_cast<float>(pixel[2 * channel]));
            } else {
                const std::int64_t next = channels == 3 ? channel : 0;
                for (std::int64_t c = 0; c < to_channels; ++c) to[c] = factor * static_cast<float>(pixel[c * next]);
            }
        }
    }

    void row(std::int64_t y, float* to) const {
        if (image.dtype == DType::uint8) return read<std::uint8_t>(y, to);
        if (image.dtype == DType::uint16) return read<std::uint16_t>(y, to);
        read<float>(y, to);
    }
};

// One line, resized along x: to [size][channels].
template <int channels>
void shrink_row(const float* from, const Filter& filter, std::int64_t size, float* to) {
    for (std::int64_t x = 0; x < size; ++x, to += channels) {
        const float* const weights = filter.of(x);
        const float* pixel = from + filter.first[static_cast<std::size_t>(x)] * channels;
        float sum[channels] = {};
        for (std::int64_t k = 0; k < filter.count[static_cast<std::size_t>(x)]; ++k, pixel += channels) {
            for (int c = 0; c < channels; ++c) sum[c] += weights[k] * pixel[c];
        }
        for (int c = 0; c < channels; ++c) to[c] = sum[c];
    }
}

// Target rows begin..end (of the picture's part of the output) in full source width, resized along y alone: a source
// row is converted once and added, while it is in the cache, to the few target rows that see it.
class Lines {
  public:
    Lines(const Source& source, const Filter& rows, std::int64_t begin, std::int64_t end)
        : begin_(begin), width_(source.width * source.to_channels), data_((end - begin) * width_) {
        if (begin == end) return;
        std::fill_n(data_.get(), (end - begin) * width_, 0.0f);
        const Buffer<float> pixels(width_);
        const auto first = [&](std::int64_t i) { return rows.first[static_cast<std::size_t>(i)]; };
        const auto past = [&](std::int64_t i) { return first(i) + rows.count[static_cast<std::size_t>(i)]; };
        std::int64_t oldest = begin;
        for (std::int64_t y = first(begin); y < past(end - 1); ++y) {
            source.row(y, pixels.get());
            while (oldest < end && past(oldest) <= y) ++oldest;
            for (std::int64_t i = oldest; i < end && first(i) <= y; ++i) {
                if (y < past(i)) add(pixels.get(), rows.of(i)[y - first(i)], data_.get() + (i - begin) * width_);
            }
        }
    }

    const float* of(std::int64_t i) const { return data_.get() + (i - begin_) * width_; }

  private:
    void add(const float* from, float weight, float* to) const {
        for (std::int64_t x = 0; x < width_; ++x) to[x] += weight * from[x];
    }

    std::int64_t begin_, width_;
    Buffer<float> data_;
};

}  // namespace

Pixels check_prepare(const Tensor& image, const Tensor& out, std::span<const double> mean,
                     std::span<const double> std) {
    const Check check("prepare");
    check.rank({"image", image}, {2, 3}, "[H,W] or [H,W,C]");
    check.dtype({"image", image}, {DType::uint8, DType::uint16, DType::float32});
    check.strides({"image", image});
    check.rank({"out", out}, {3}, "[C,h,w]");
    check.dtype({"out", out}, {DType::float32});
    check.output({"out", out});
    check.apart({{"out", out}}, {{"image", image}});
    const std::int64_t channels = image.rank == 3 ? image.size(2) : 1, to_channels = out.size(0);
    if (channels != 1 && channels != 3) check.fail("image has ", channels, " channels, expected 1 or 3");
    if (to_channels != 1 && to_channels != 3) check.fail("out has ", to_channels, " channels, expected 1 or 3");
    if (image.size(0) * image.size(1) == 0) check.fail("image is empty, shape ", shape_text(image));
    if (out.size(1) * out.size(2) == 0) check.fail("out is empty, shape ", shape_text(out));
    const auto expected = static_cast<std::size_t>(to_channels);
    if (mean.size() != expected) check.fail("mean has ", mean.size(), " entries, out has ", to_channels, " channels");
    if (std.size() != expected) check.fail("std has ", std.size(), " entries, out has ", to_channels, " channels");
    for (std::size_t c = 0; c < expected; ++c) {
        if (!std::isfinite(mean[c])) check.fail("mean[", c, "] is ", mean[c], ", expected a finite number");
        if (!(std[c] > 0.0) || !std::isfinite(std[c])) check.fail("std[", c, "] is ", std[c], ", expected > 0");
    }
    const float factor = image.dtype == DType::uint8    ? 1.0f / 255.0f
                         : image.dtype == DType::uint16 ? 1.0f / 65535.0f
                                                        : 1.0f;
    return {channels, to_channels, factor};
}

void prepare(const Tensor& image, const Tensor& out, Resize resize, std::span<const double> mean,
             std::span<const double> std) {
    const Pixels pixels = check_prepare(image, out, mean, std);
    const Source source = {image, image.size(1), pixels.channels, pixels.to_channels, pixels.factor};
    const std::int64_t height = out.size(1), width = out.size(2), channels = source.to_channels;
    const Geometry place = geometry(image.size(0), image.size(1), height, width, resize);
    const Filter row_filter(place.rows, image.size(0)), column_filter(place.columns, image.size(1));
    const auto shrink = channels == 3 ? shrink_row<3> : shrink_row<1>;
    parallel_for((height + rows_per_task - 1) / rows_per_task, [&](std::int64_t task) {
        const std::int64_t top = task * rows_per_task, bottom = std::min(top + rows_per_task, height);
        const std::int64_t begin = std::max(top - place.rows.offset, std::int64_t{0});
        const std::int64_t end = std::min(bottom - place.rows.offset, place.rows.size);
        const Lines lines(source, row_filter, begin, std::max(begin, end));
        const Buffer<float> line(place.columns.size * channels);
        for (std::int64_t y = top; y < bottom; ++y) {
            const std::int64_t from = y - place.rows.offset;
            const bool inside = from >= begin && from < end;
            if (inside) shrink(lines.of(from), column_filter, place.columns.size, line.get());
            for (std::int64_t c = 0; c < channels; ++c) {
                const auto m = static_cast<float>(mean[static_cast<std::size_t>(c)]);
                const auto s = static_cast<float>(std[static_cast<std::size_t>(c)]);
                float* const to = out.as<float>() + c * out.step(0) + y * out.step(1);
                for (std::int64_t x = 0; x < width; ++x) {
                    const std::int64_t i = x - place.columns.offset;
                    const bool picture = inside && i >= 0 && i < place.columns.size;
                    to[x * out.step(2)] = ((picture ? line[i * channels + c] : 0.0f) - m) / s;
                }
            }
        }
    });
}

}  // namespace normscan

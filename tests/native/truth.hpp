// What several tests compute in the slowest way there is: dense arrays of doubles.
#pragma once

#include "arrays.hpp"

namespace truth {

// The weights of output pixels (rows) for input pixels (columns), one axis of a separable filter.
struct Filter {
    std::int64_t from, to;
    Doubles weights;

    Filter(std::int64_t from_side, std::int64_t to_side)
        : from(from_side), to(to_side), weights(static_cast<std::size_t>(from_side * to_side), 0.0) {}
    double& at(std::int64_t out, std::int64_t in) { return weights[static_cast<std::size_t>(out * from + in)]; }
    double at(std::int64_t out, std::int64_t in) const { return weights[static_cast<std::size_t>(out * from + in)]; }
    // Each row to the sum 1.
    Filter& normalise() {
        for (std::int64_t i = 0; i < to; ++i) {
            double sum = 0.0;
            for (std::int64_t k = 0; k < from; ++k) sum += at(i, k);
            for (std::int64_t k = 0; k < from; ++k) at(i, k) /= sum;
        }
        return *this;
    }
};

// planes [P,h,w] -> [P,H,W]
inline Doubles filtered(const Doubles& planes, std::int64_t count, const Filter& rows, const Filter& columns) {
    Doubles all;
    for (std::int64_t p = 0; p < count; ++p) {
        Doubles wide;  // [h,W]
        for (std::int64_t y = 0; y < rows.from; ++y) {
            for (std::int64_t x = 0; x < columns.to; ++x) {
                double sum = 0.0;
                for (std::int64_t k = 0; k < columns.from; ++k) {
                    const double weight = columns.at(x, k);
                    if (weight == 0.0) continue;
                    sum += weight * planes[static_cast<std::size_t>((p * rows.from + y) * columns.from + k)];
                }
                wide.push_back(sum);
            }
        }
        for (std::int64_t y = 0; y < rows.to; ++y) {
            for (std::int64_t x = 0; x < columns.to; ++x) {
                double sum = 0.0;
                for (std::int64_t k = 0; k < rows.from; ++k) {
                    const double weight = rows.at(y, k);
                    if (weight != 0.0) sum += weight * wide[static_cast<std::size_t>(k * columns.to + x)];
                }
                all.push_back(sum);
            }
        }
    }
    return all;
}

// Bilinear, align_corners false.
inline Filter bilinear(std::int64_t from, std::int64_t to) {
    Filter filter(from, to);
    for (std::int64_t i = 0; i < to; ++i) {
        const double scale = static_cast<double>(from) / static_cast<double>(to);
        const double at = std::clamp((static_cast<double>(i) + 0.5) * scale - 0.5, 0.0, static_cast<double>(from - 1));
        const auto low = static_cast<std::int64_t>(at);
        filter.at(i, low) += 1.0 - (at - static_cast<double>(low));
        filter.at(i, std::min(low + 1, from - 1)) += at - static_cast<double>(low);
    }
    return filter;
}

// A Gaussian over the axis and its mirror images.
inline Filter blur(std::int64_t side, double sigma) {
    Filter filter(side, side);
    const auto radius = static_cast<std::int64_t>(4.0 * sigma + 0.5);
    for (std::int64_t i = 0; i < side; ++i) {
        for (std::int64_t k = -radius; k <= radius; ++k) {
            const std::int64_t folded = ((i + k) % (2 * side) + 2 * side) % (2 * side);
            const double x = radius == 0 ? 0.0 : static_cast<double>(k) / sigma;
            filter.at(i, std::min(folded, 2 * side - 1 - folded)) += std::exp(-0.5 * x * x);
        }
    }
    return filter.normalise();
}

// The window of SSIM, 11 taps, cut at the border.
inline Filter window(std::int64_t side) {
    Filter filter(side, side);
    for (std::int64_t i = 0; i < side; ++i) {
        for (std::int64_t k = std::max<std::int64_t>(0, i - 5); k <= std::min(side - 1, i + 5); ++k) {
            filter.at(i, k) = std::exp(-0.5 * static_cast<double>((k - i) * (k - i)) / (1.5 * 1.5));
        }
    }
    return filter.normalise();
}

inline Doubles ssim(const Doubles& a, const Doubles& b, const Shape& shape, bool with_light) {
    const std::int64_t count = shape[0] * shape[1];
    const Filter rows = window(shape[2]), columns = window(shape[3]);
    const auto mean_of = [&](const Doubles& x, const Doubles& y) {
        Doubles product;
        for (std::size_t i = 0; i < x.size(); ++i) product.push_back(x[i] * y[i]);
        return filtered(product, count, rows, columns);
    };
    const Doubles ones(a.size(), 1.0), ma = mean_of(a, ones), mb = mean_of(b, ones);
    const Doubles aa = mean_of(a, a), bb = mean_of(b, b), ab = mean_of(a, b);
    Doubles all;
    for (std::size_t i = 0; i < a.size(); ++i) {
        const double light = (2.0 * ma[i] * mb[i] + 1e-4) / (ma[i] * ma[i] + mb[i] * mb[i] + 1e-4);
        const double variances = aa[i] - ma[i] * ma[i] + bb[i] - mb[i] * mb[i];
        const double structure = (2.0 * (ab[i] - ma[i] * mb[i]) + 9e-4) / (variances + 9e-4);
        all.push_back(1.0 - (with_light ? light : 1.0) * structure);
    }
    return all;
}

// a, b dense [N,C,H,W] -> [N,H,W]. relative_l1 divides by the mean magnitude of `reference`.
inline Doubles distance(const Doubles& a, const Doubles& b, const Doubles& reference, const Shape& shape,
                        normscan::Metric metric) {
    using normscan::Metric;
    const auto n = static_cast<std::size_t>(shape[0]), c = static_cast<std::size_t>(shape[1]);
    const auto positions = static_cast<std::size_t>(shape[2] * shape[3]);
    const bool windowed = metric == Metric::ssim || metric == Metric::cs;
    const Doubles ssims = windowed ? ssim(a, b, shape, metric == Metric::ssim) : Doubles();
    Doubles all;
    for (std::size_t image = 0; image < n; ++image) {
        double magnitude = 0.0;
        for (std::size_t i = 0; i < c * positions; ++i) magnitude += std::abs(reference[image * c * positions + i]);
        for (std::size_t p = 0; p < positions; ++p) {
            const auto sum = [&](auto&& term) {
                double total = 0.0;
                for (std::size_t k = 0; k < c; ++k) total += term((image * c + k) * positions + p);
                return total;
            };
            const double channels = static_cast<double>(c);
            if (windowed) {
                all.push_back(sum([&](std::size_t i) { return ssims[i]; }) / channels);
            } else if (metric == Metric::l2) {
                all.push_back(sum([&](std::size_t i) { return (a[i] - b[i]) * (a[i] - b[i]); }) / channels);
            } else if (metric == Metric::cosine) {
                const double na = std::sqrt(sum([&](std::size_t i) { return a[i] * a[i]; }));
                const double nb = std::sqrt(sum([&](std::size_t i) { return b[i] * b[i]; }));
                all.push_back(0.5 * sum([&](std::size_t i) { return std::pow(a[i] / na - b[i] / nb, 2.0); }));
            } else {
                const double l1 = sum([&](std::size_t i) { return std::abs(a[i] - b[i]); }) / channels;
                const double mean = magnitude / (channels * static_cast<double>(positions));
                all.push_back(metric == Metric::l1 ? l1 : l1 / mean);
            }
        }
    }
    return all;
}

}  // namespace truth

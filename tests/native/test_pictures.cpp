// Pictures in and maps back: prepare, restore; and scores of groups: aggregate.
#include "arrays.hpp"
#include "truth.hpp"

using namespace normscan;

namespace {

// One axis of a picture in the input: the box from `begin` of length `extent` becomes `size` pixels from `offset` on.
struct Box {
    double begin, extent;
    std::int64_t offset, size;
};

// `scale` as the fraction to / from of one axis: "fit" takes the smaller one, "crop" the larger.
Box box(std::int64_t from, std::int64_t to, std::int64_t scale_to, std::int64_t scale_from, Resize resize) {
    const auto side = static_cast<double>(from);
    if (resize == Resize::stretch) return {0.0, side, 0, to};
    if (resize == Resize::fit) {
        const std::int64_t size = std::max<std::int64_t>(1, (2 * from * scale_to + scale_from) / (2 * scale_from));
        return {0.0, side, (to - size) / 2, size};
    }
    const double extent = static_cast<double>(to * scale_from) / static_cast<double>(scale_to);
    return {(side - extent) / 2.0, extent, 0, to};
}

struct Boxes {
    Box rows, columns;
};

Boxes boxes(std::int64_t height, std::int64_t width, std::int64_t to_height, std::int64_t to_width, Resize resize) {
    const bool rows_shrink_more = to_height * width < to_width * height;
    const bool by_rows = rows_shrink_more == (resize == Resize::fit);
    const std::int64_t to = by_rows ? to_height : to_width, from = by_rows ? height : width;
    return {box(height, to_height, to, from, resize), box(width, to_width, to, from, resize)};
}

truth::Filter triangle(std::int64_t side, const Box& b) {
    truth::Filter filter(side, b.size);
    const double scale = b.extent / static_cast<double>(b.size), support = std::max(1.0, scale);
    for (std::int64_t i = 0; i < b.size; ++i) {
        const double centre = b.begin + (static_cast<double>(i) + 0.5) * scale;
        for (std::int64_t k = 0; k < side; ++k) {
            filter.at(i, k) = std::max(0.0, 1.0 - std::abs(static_cast<double>(k) + 0.5 - centre) / support);
        }
    }
    return filter.normalise();
}

// [H,W,C] -> [C',H,W] in 0..1.
template <class T>
Doubles planes(const Array<T>& image, std::int64_t channels, std::int64_t to_channels) {
    const double full = sizeof(T) == 1 ? 255.0 : sizeof(T) == 2 ? 65535.0 : 1.0;
    const Doubles values = image.doubles();
    const std::int64_t pixels = image.size(0) * image.size(1);
    Doubles all;
    for (std::int64_t c = 0; c < to_channels; ++c) {
        for (std::int64_t p = 0; p < pixels; ++p) {
            const auto at = [&](std::int64_t k) { return values[static_cast<std::size_t>(p * channels + k)] / full; };
            const bool grey = channels == 3 && to_channels == 1;
            all.push_back(grey ? 0.299 * at(0) + 0.587 * at(1) + 0.114 * at(2) : at(channels == 3 ? c : 0));
        }
    }
    return all;
}

struct Picture {
    std::int64_t height, width, to_height, to_width;
};
constexpr Picture pictures[] = {{1, 1, 1, 1}, {19, 111, 19, 19}, {111, 19, 7, 30}, {5, 7, 40, 19}, {1, 111, 19, 1}};
constexpr Resize resizes[] = {Resize::stretch, Resize::fit, Resize::crop};

template <class T>
void prepared(const Picture& p, std::int64_t channels, std::int64_t to_channels, Resize resize, Layout layout) {
    Array<T> image(channels == 0 ? Shape{p.height, p.width} : Shape{p.height, p.width, channels}, layout);
    image.fill(1, 0.0, sizeof(T) == 1 ? 256.0 : sizeof(T) == 2 ? 65536.0 : 1.0);
    Array<float> out({to_channels, p.to_height, p.to_width}, layout);
    const Doubles mean = to_channels == 1 ? Doubles{0.4} : Doubles{0.4, 0.5, 0.6}, std(mean.size(), 0.25);
    with_any_threads([&] { prepare(image, out, resize, mean, std); }, out);
    const Boxes b = boxes(p.height, p.width, p.to_height, p.to_width, resize);
    const Doubles resized = truth::filtered(planes(image, std::max<std::int64_t>(1, channels), to_channels),
                                            to_channels, triangle(p.height, b.rows), triangle(p.width, b.columns));
    Doubles wanted;
    for (std::int64_t c = 0; c < to_channels; ++c) {
        for (std::int64_t y = 0; y < p.to_height; ++y) {
            for (std::int64_t x = 0; x < p.to_width; ++x) {
                const std::int64_t v = y - b.rows.offset, u = x - b.columns.offset;
                const bool inside = v >= 0 && v < b.rows.size && u >= 0 && u < b.columns.size;
                const auto at = static_cast<std::size_t>((c * b.rows.size + v) * b.columns.size + u);
                wanted.push_back(((inside ? resized[at] : 0.0) - mean[static_cast<std::size_t>(c)]) / 0.25);
            }
        }
    }
    expect("prepare", out, wanted, bound<float>());
}

TEST(prepare_everywhere) {
    for (const Picture& p : pictures) {
        for (const Resize resize : resizes) {
            for (const Layout layout : layouts) {
                for (const std::int64_t channels : {0, 1, 3}) {
                    prepared<std::uint8_t>(p, channels, 3, resize, layout);
                    prepared<float>(p, channels, 1, resize, layout);
                }
                prepared<std::uint16_t>(p, 3, 3, resize, layout);
            }
        }
    }
}

TEST(restore_everywhere) {
    for (const Picture& p : pictures) {
        for (const Resize resize : resizes) {
            for (const Layout layout : layouts) {
                Array<float> map({p.to_height, p.to_width}, layout), out({p.height, p.width}, layout);
                map.fill(1);
                with_any_threads([&] { restore(map, out, resize); }, out);
                const Boxes b = boxes(p.height, p.width, p.to_height, p.to_width, resize);
                const auto filter = [](std::int64_t side, std::int64_t from, const Box& one) {
                    truth::Filter f(from, side);
                    for (std::int64_t i = 0; i < side; ++i) {
                        const double centre = static_cast<double>(i) + 0.5 - one.begin;
                        if (centre < 0.0 || centre > one.extent) continue;  // crop never looked there
                        const double at = std::clamp(centre * static_cast<double>(one.size) / one.extent - 0.5, 0.0,
                                                     static_cast<double>(one.size - 1));
                        const auto low = static_cast<std::int64_t>(at);
                        f.at(i, one.offset + low) += 1.0 - (at - static_cast<double>(low));
                        f.at(i, one.offset + std::min(low + 1, one.size - 1)) += at - static_cast<double>(low);
                    }
                    return f;
                };
                expect("restore", out,
                       truth::filtered(map.doubles(), 1, filter(p.height, p.to_height, b.rows),
                                       filter(p.width, p.to_width, b.columns)),
                       bound<float>());
            }
        }
    }
}

TEST(aggregate_everywhere) {
    for (const std::int64_t n : {3, 19, 111}) {
        for (const Layout layout : layouts) {
            Array<double> scores({n}, layout), out({3}, layout);
            Array<std::int64_t> groups({n}, layout);
            scores.fill(1, 0.0);
            Doubles sum(3, 0.0), largest(3, -2.0), above(3, 0.0), missed(3, 1.0), members(3, 0.0);
            std::array<Doubles, 3> all;
            for (std::int64_t i = 0; i < n; ++i) {
                const auto g = static_cast<std::size_t>(groups.element(i) = (i * 7) % 3);
                const double x = scores.element(i);
                sum[g] += x, members[g] += 1.0, above[g] += x > 0.2;
                largest[g] = std::max(largest[g], x);
                missed[g] *= 1.0 - x;
                all[g].push_back(x);
            }
            Doubles top(3, 0.0), any;
            for (std::size_t g = 0; g < 3; ++g) {
                sum[g] /= members[g], above[g] /= members[g];
                any.push_back(1.0 - missed[g]);
                std::sort(all[g].rbegin(), all[g].rend());
                const auto k = static_cast<std::size_t>(std::ceil(0.2 * members[g]));
                for (std::size_t i = 0; i < k; ++i) top[g] += all[g][i] / static_cast<double>(k);
            }
            const auto found = [&](GroupMethod method) {
                with_any_threads([&] { aggregate(scores, groups, out, method, 0.2); }, out);
            };
            found(GroupMethod::mean), expect("aggregate mean", out, sum, 1e-13);
            found(GroupMethod::max), expect("aggregate max", out, largest, 0.0);
            found(GroupMethod::fraction), expect("aggregate fraction", out, above, 1e-13);
            found(GroupMethod::topk), expect("aggregate topk", out, top, 1e-13);
            found(GroupMethod::noisy_or), expect("aggregate noisy_or", out, any, 1e-13);
        }
    }
}

}  // namespace

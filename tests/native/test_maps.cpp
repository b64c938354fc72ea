// Maps: resample, smooth, pool, and distance_maps, which is all of them after one another.
#include "arrays.hpp"
#include "truth.hpp"

using namespace normscan;

namespace {

struct Pooled {
    PoolMethod method;
    double parameter;
};
constexpr Pooled pools[] = {{PoolMethod::mean, 0.0},     {PoolMethod::max, 0.0},      {PoolMethod::topk, 0.05},
                            {PoolMethod::topk, 1.0},     {PoolMethod::quantile, 0.0}, {PoolMethod::quantile, 0.37},
                            {PoolMethod::quantile, 1.0}, {PoolMethod::area, 0.3}};

// Pixels of the component above the threshold that contains pixel i; they are taken out of `open`.
std::int64_t flood(std::vector<char>& open, std::int64_t height, std::int64_t width, std::int64_t i) {
    const std::int64_t y = i / width, x = i % width;
    if (!open[static_cast<std::size_t>(i)]) return 0;
    open[static_cast<std::size_t>(i)] = false;
    std::int64_t area = 1;
    for (std::int64_t v = std::max<std::int64_t>(0, y - 1); v <= std::min(height - 1, y + 1); ++v) {
        for (std::int64_t u = std::max<std::int64_t>(0, x - 1); u <= std::min(width - 1, x + 1); ++u) {
            area += flood(open, height, width, v * width + u);
        }
    }
    return area;
}

double pooled(Doubles map, std::int64_t height, std::int64_t width, const Pooled& how) {
    const auto size = static_cast<double>(map.size());
    if (how.method == PoolMethod::area) {
        std::vector<char> open;
        for (const double x : map) open.push_back(x > how.parameter);
        std::int64_t largest = 0;
        for (std::int64_t i = 0; i < height * width; ++i) largest = std::max(largest, flood(open, height, width, i));
        return static_cast<double>(largest) / size;
    }
    std::sort(map.begin(), map.end());
    if (how.method == PoolMethod::max) return map.back();
    if (how.method == PoolMethod::quantile) {
        const double at = how.parameter * (size - 1.0);
        const auto below = static_cast<std::size_t>(at);
        const std::size_t above = std::min(below + 1, map.size() - 1);
        return map[below] + (at - static_cast<double>(below)) * (map[above] - map[below]);
    }
    const auto k = static_cast<std::size_t>(how.method == PoolMethod::mean ? size : std::ceil(how.parameter * size));
    double sum = 0.0;
    for (std::size_t i = map.size() - k; i < map.size(); ++i) sum += map[i];
    return sum / static_cast<double>(k);
}

Doubles pooled(const Doubles& maps, const Shape& shape, const Pooled& how) {
    Doubles all;
    for (std::int64_t n = 0; n < shape[0]; ++n) {
        const auto begin = maps.begin() + static_cast<std::ptrdiff_t>(n * shape[1] * shape[2]);
        all.push_back(
            pooled(Doubles(begin, begin + static_cast<std::ptrdiff_t>(shape[1] * shape[2])), shape[1], shape[2], how));
    }
    return all;
}

template <class T>
void run(const Shape& shape, Layout layout) {
    Array<T> map(shape, layout);
    map.fill(1);
    for (const Shape& size : {Shape{1, 1}, Shape{19, 111}, Shape{shape[1], shape[2]}}) {
        Array<T> out({shape[0], size[0], size[1]}, layout);
        with_any_threads([&] { resample(map, out); }, out);
        expect("resample", out,
               truth::filtered(map.doubles(), shape[0], truth::bilinear(shape[1], size[0]),
                               truth::bilinear(shape[2], size[1])),
               bound<T>());
    }
    for (const double sigma : {0.0, 0.6, 2.0, 7.0}) {
        Array<T> out(shape, layout);
        with_any_threads([&] { smooth(map, out, sigma); }, out);
        expect("smooth", out,
               truth::filtered(map.doubles(), shape[0], truth::blur(shape[1], sigma), truth::blur(shape[2], sigma)),
               bound<T>());
    }
    for (const Pooled& how : pools) {
        Array<T> out({shape[0]}, layout);
        with_any_threads([&] { pool(map, out, how.method, how.parameter); }, out);
        expect("pool", out, pooled(map.doubles(), shape, how), bound<T>());
    }
}

TEST(maps_everywhere) {
    for (const Shape& shape : {Shape{0, 3, 4}, Shape{1, 1, 1}, Shape{2, 19, 19}, Shape{3, 1, 111}, Shape{1, 111, 2}}) {
        for (const Layout layout : layouts) {
            run<float>(shape, layout);
            run<double>(shape, layout);
        }
    }
}

TEST(pool_keeps_nan) {
    for (const Pooled& how : pools) {
        for (const std::int64_t place : {0, 1, 37, 110}) {
            Array<float> map({2, 1, 111}), out({2});
            map.fill(1);
            map.element(111 + place) = std::numeric_limits<float>::quiet_NaN();
            pool(map, out, how.method, how.parameter);
            CHECK(std::isfinite(out.element(0)));
            CHECK(std::isnan(out.element(1)));
        }
    }
}

template <class T>
void levels(std::int64_t images, Metric metric, Fuse fuse, double sigma, Layout layout) {
    const Shape shapes[] = {{images, 3, 19, 5}, {images, 19, 4, 7}, {images, 2, 1, 1}}, out_shape = {images, 23, 31};
    const Doubles weights = fuse == Fuse::sum ? Doubles{0.5, 2.0, -1.0} : Doubles(3, 1.0);
    std::vector<Array<T>> memory;
    std::vector<FeaturePair> pairs;
    for (const Shape& shape : shapes) {
        for (std::uint64_t side = 0; side < 2; ++side) {
            memory.emplace_back(shape, layout);
            memory.back().fill(memory.size() + side, 0.0);
        }
    }
    Doubles wanted(static_cast<std::size_t>(images * 23 * 31), fuse == Fuse::sum ? 0.0 : 1.0);
    for (std::size_t l = 0; l < 3; ++l) {
        const Array<T>&a = memory[2 * l], &b = memory[2 * l + 1];
        pairs.push_back({a, b});
        const Doubles map = truth::distance(a.doubles(), b.doubles(), b.doubles(), shapes[l], metric);
        const Doubles large =
            truth::filtered(map, images, truth::bilinear(shapes[l][2], 23), truth::bilinear(shapes[l][3], 31));
        for (std::size_t i = 0; i < wanted.size(); ++i) {
            wanted[i] = fuse == Fuse::sum ? wanted[i] + weights[l] * large[i] : wanted[i] * large[i];
        }
    }
    wanted = truth::filtered(wanted, images, truth::blur(23, sigma), truth::blur(31, sigma));
    Array<T> out(out_shape, layout), score({images}, layout);
    with_any_threads([&] { distance_maps(pairs, out, score, metric, weights, fuse, sigma, PoolMethod::topk, 0.1); },
                     out, score);
    const double within = bound<T>(metric == Metric::ssim ? 50.0 : 2.0);
    expect("distance_maps", out, wanted, within);
    expect("distance_maps: score", score, pooled(wanted, out_shape, {PoolMethod::topk, 0.1}), within);
}

TEST(distance_maps_everywhere) {
    for (const Layout layout : layouts) {
        for (const Metric metric : {Metric::cosine, Metric::ssim}) {
            for (const Fuse fuse : {Fuse::sum, Fuse::product}) {
                levels<float>(2, metric, fuse, 1.3, layout);
                levels<double>(1, metric, fuse, 0.0, layout);
                levels<float>(0, metric, fuse, 1.3, layout);
            }
        }
    }
}

}  // namespace

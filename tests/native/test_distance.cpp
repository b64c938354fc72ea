// distance in every metric, and its backward.
#include "arrays.hpp"
#include "truth.hpp"

using namespace normscan;

namespace {

struct Size {
    std::int64_t n, c, h, w;
};
constexpr Size sizes[] = {{0, 3, 2, 2}, {1, 1, 1, 1}, {2, 19, 3, 7}, {1, 3, 19, 19}, {1, 2, 1, 111}, {1, 111, 2, 1}};
constexpr Metric metrics[] = {Metric::l1, Metric::l2, Metric::cosine, Metric::relative_l1, Metric::ssim, Metric::cs};

template <class T>
void run(const Size& s, Metric metric, Layout layout) {
    const Shape shape = {s.n, s.c, s.h, s.w}, map = {s.n, s.h, s.w};
    const bool windowed = metric == Metric::ssim || metric == Metric::cs;
    Array<T> a(shape, layout), b(shape, layout), out(map, layout), grad_out(map, layout);
    a.fill(1, 0.0), b.fill(2, 0.0), grad_out.fill(3);
    const std::string name = "distance " + std::string(metric_names[static_cast<std::size_t>(metric)]);
    with_any_threads([&] { distance(a, b, out, metric); }, out);
    const Doubles da = a.doubles(), db = b.doubles(), g = grad_out.doubles();
    expect(name, out, truth::distance(da, db, db, shape, metric), bound<T>(windowed ? 20.0 : 1.0));

    Array<T> grad_a(shape, layout), grad_b(shape, layout);
    with_any_threads([&] { distance_backward(grad_out, a, b, grad_a, grad_b, metric); }, grad_a, grad_b);
    const auto loss = [&](const Doubles& x, const Doubles& y) {
        const Doubles found = truth::distance(x, y, db, shape, metric);  // relative to b itself: a constant
        double sum = 0.0;
        for (std::size_t i = 0; i < g.size(); ++i) sum += g[i] * found[i];
        return sum;
    };
    const double within = slope_bound<T>(windowed ? 50.0 : 1.0);
    expect_gradient(name + ": grad_a", grad_a, da, [&](const Doubles& x) { return loss(x, db); }, within);
    expect_gradient(name + ": grad_b", grad_b, db, [&](const Doubles& x) { return loss(da, x); }, within);
}

TEST(distance_everywhere) {
    for (const Size& s : sizes) {
        for (const Metric metric : metrics) {
            for (const Layout layout : layouts) {
                run<float>(s, metric, layout);
                if (layout == Layout::contiguous) run<double>(s, metric, layout);
            }
        }
    }
}

TEST(distance_keeps_nan) {
    for (const Metric metric : metrics) {
        Array<float> a({1, 3, 1, 40}), b({1, 3, 1, 40}), out({1, 1, 40});
        a.fill(1, 0.0), b.fill(2, 0.0);
        a.element(39) = std::numeric_limits<float>::quiet_NaN();
        distance(a, b, out, metric);
        CHECK(std::isnan(out.element(39)));
        CHECK(std::isfinite(out.element(0)));
    }
}

}  // namespace

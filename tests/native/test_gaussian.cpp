// gaussian, gaussian_positions and its fit.
#include "arrays.hpp"

using namespace normscan;

namespace {

struct Size {
    std::int64_t n, c, h, w;
};
constexpr Size sizes[] = {{0, 3, 2, 2}, {1, 1, 1, 1}, {2, 19, 3, 7}, {1, 5, 19, 19}, {1, 111, 1, 19}};

// Row i of the whitener: of a triangle, of a diagonal or of one number for all.
double factor(const Doubles& whitener, std::size_t entries, std::size_t c, std::size_t i, std::size_t j) {
    if (entries == c * c && c > 1) return j <= i ? whitener[i * c + j] : 0.0;
    if (i != j) return 0.0;
    return entries == 1 ? whitener[0] : whitener[i];
}

// |W (z - mean)|^2 at every position; z dense [N,C,P].
Doubles truth(const Doubles& z, const Doubles& mean, const Doubles& whitener, std::size_t n, std::size_t positions) {
    const std::size_t c = mean.size();
    Doubles all;
    for (std::size_t i = 0; i < n; ++i) {
        for (std::size_t p = 0; p < positions; ++p) {
            double sum = 0.0;
            for (std::size_t row = 0; row < c; ++row) {
                double y = 0.0;
                for (std::size_t k = 0; k < c; ++k) {
                    y += factor(whitener, whitener.size(), c, row, k) * (z[(i * c + k) * positions + p] - mean[k]);
                }
                sum += y * y;
            }
            all.push_back(sum);
        }
    }
    return all;
}

double weighted(const Doubles& values, const Doubles& weights) {
    double sum = 0.0;
    for (std::size_t i = 0; i < values.size(); ++i) sum += values[i] * weights[i];
    return sum;
}

template <class T>
void shared(const Size& s, bool flat, const Shape& whitener_shape, Layout layout) {
    const Shape shape = flat ? Shape{s.n * s.h * s.w, s.c} : Shape{s.n, s.c, s.h, s.w};
    const Shape positions = flat ? Shape{s.n * s.h * s.w} : Shape{s.n, s.h, s.w};
    Array<T> z(shape, layout), mean({s.c}, layout), whitener(whitener_shape, layout);
    z.fill(1), mean.fill(2), whitener.fill(3);
    Array<T> out(positions, layout), grad_out(positions, layout);
    grad_out.fill(4);
    const auto images = static_cast<std::size_t>(shape[0]), per = static_cast<std::size_t>(flat ? 1 : s.h * s.w);
    with_any_threads([&] { gaussian(z, mean, whitener, out); }, out);
    expect("gaussian", out, truth(z.doubles(), mean.doubles(), whitener.doubles(), images, per), bound<T>());

    Array<T> grad_z(shape, layout), grad_mean({s.c}, layout), grad_whitener(whitener_shape, layout);
    with_any_threads([&] { gaussian_backward(grad_out, z, mean, whitener, grad_z, grad_mean, grad_whitener); }, grad_z,
                     grad_mean, grad_whitener);
    const Doubles g = grad_out.doubles();
    const auto loss = [&](const Doubles& a, const Doubles& b, const Doubles& c) {
        return weighted(truth(a, b, c, images, per), g);
    };
    const Doubles a = z.doubles(), b = mean.doubles(), c = whitener.doubles();
    expect_gradient("grad_z", grad_z, a, [&](const Doubles& x) { return loss(x, b, c); }, slope_bound<T>());
    expect_gradient("grad_mean", grad_mean, b, [&](const Doubles& x) { return loss(a, x, c); }, slope_bound<T>());
    expect_gradient(
        "grad_whitener", grad_whitener, c, [&](const Doubles& x) { return loss(a, b, x); }, slope_bound<T>());
}

// One Gaussian a position: the shared truth, position by position.
template <class T>
void by_position(const Size& s, Layout layout) {
    const std::int64_t entries = s.c * (s.c + 1) / 2;
    Array<T> z({s.n, s.c, s.h, s.w}, layout), mean({s.c, s.h, s.w}, layout), packed({s.h, s.w, entries}, layout);
    // Rows of triangles must lie in one piece: channels_last of [H,W,C,C] would not.
    Array<T> full({s.h, s.w, s.c, s.c}, layout == Layout::channels_last ? Layout::contiguous : layout);
    z.fill(1), mean.fill(2), full.fill(3);
    const std::int64_t positions = s.h * s.w;
    for (std::int64_t p = 0; p < positions; ++p) {
        for (std::int64_t i = 0, e = 0; i < s.c; ++i) {
            for (std::int64_t j = 0; j <= i; ++j, ++e) {
                packed.element(p * entries + e) = full.element((p * s.c + i) * s.c + j);
            }
        }
    }
    Doubles wanted(static_cast<std::size_t>(s.n * positions));
    for (std::int64_t p = 0; p < positions; ++p) {
        Doubles one_z, one_mean, one_whitener;
        for (std::int64_t i = 0; i < s.n * s.c; ++i) one_z.push_back(static_cast<double>(z.element(i * positions + p)));
        for (std::int64_t i = 0; i < s.c; ++i) one_mean.push_back(static_cast<double>(mean.element(i * positions + p)));
        for (std::int64_t i = 0; i < s.c * s.c; ++i) {
            one_whitener.push_back(static_cast<double>(full.element(p * s.c * s.c + i)));
        }
        const Doubles one = truth(one_z, one_mean, one_whitener, static_cast<std::size_t>(s.n), 1);
        for (std::int64_t n = 0; n < s.n; ++n) {
            wanted[static_cast<std::size_t>(n * positions + p)] = one[static_cast<std::size_t>(n)];
        }
    }
    Array<T> out({s.n, s.h, s.w}, layout);
    with_any_threads([&] { gaussian_positions(z, mean, packed, out); }, out);
    expect("gaussian_positions, packed", out, wanted, bound<T>());
    with_any_threads([&] { gaussian_positions(z, mean, full, out); }, out);
    expect("gaussian_positions, full", out, wanted, bound<T>());
}

// Mean, scatter and whitener of z, in two pieces; W covariance W' must be the identity.
template <class T>
void fitted(std::int64_t n, std::int64_t c, std::int64_t h, std::int64_t w, Layout layout) {
    const std::int64_t entries = c * (c + 1) / 2, positions = h * w, first = n / 3;
    Array<T> z({n, c, h, w}, layout), head({first, c, h, w}, layout), tail({n - first, c, h, w}, layout);
    z.fill(1);
    for (std::int64_t i = 0; i < z.count(); ++i) {
        (i < head.count() ? head.element(i) : tail.element(i - head.count())) = z.element(i);
    }
    Array<double> mean({c, h, w}, layout), scatter({h, w, entries}, layout), whitener({h, w, entries}, layout);
    const auto fit = [&] {
        mean.fill(0, 0.0, 0.0), scatter.fill(0, 0.0, 0.0);
        gaussian_positions_fit(head, 0, mean, scatter);
        gaussian_positions_fit(tail, first, mean, scatter);
        gaussian_positions_whitener(scatter, whitener, n, 0.1);
    };
    with_any_threads(fit, mean, scatter, whitener);
    Doubles means, scatters;
    for (std::int64_t k = 0; k < c; ++k) {
        for (std::int64_t p = 0; p < positions; ++p) {
            double sum = 0.0;
            for (std::int64_t i = 0; i < n; ++i) sum += static_cast<double>(z.element((i * c + k) * positions + p));
            means.push_back(sum / static_cast<double>(n));
        }
    }
    const auto deviation = [&](std::int64_t i, std::int64_t k, std::int64_t p) {
        return static_cast<double>(z.element((i * c + k) * positions + p)) -
               means[static_cast<std::size_t>(k * positions + p)];
    };
    for (std::int64_t p = 0; p < positions; ++p) {
        for (std::int64_t i = 0; i < c; ++i) {
            for (std::int64_t j = 0; j <= i; ++j) {
                double sum = 0.0;
                for (std::int64_t image = 0; image < n; ++image) sum += deviation(image, i, p) * deviation(image, j, p);
                scatters.push_back(sum);
            }
        }
    }
    expect("mean", mean, means, 1e-12);
    expect("scatter", scatter, scatters, 1e-11);
    for (std::int64_t p = 0; p < positions; ++p) {
        const auto triangle = [&](const auto& from, std::int64_t i, std::int64_t j) {
            return from.element(p * entries + std::max(i, j) * (std::max(i, j) + 1) / 2 + std::min(i, j));
        };
        double trace = 0.0;
        for (std::int64_t i = 0; i < c; ++i) trace += triangle(scatter, i, i);
        for (std::int64_t i = 0; i < c; ++i) {
            for (std::int64_t j = 0; j <= i; ++j) {
                double product = 0.0;
                for (std::int64_t k = 0; k <= i; ++k) {
                    for (std::int64_t l = 0; l <= j; ++l) {
                        const double shrunk =
                            0.9 * triangle(scatter, k, l) + (k == l ? 0.1 * trace / static_cast<double>(c) : 0.0);
                        product +=
                            triangle(whitener, i, k) * shrunk / static_cast<double>(n - 1) * triangle(whitener, j, l);
                    }
                }
                CHECK(std::abs(product - (i == j ? 1.0 : 0.0)) < 1e-9);
            }
        }
    }
}

TEST(gaussian_everywhere) {
    for (const Size& s : sizes) {
        for (const Layout layout : layouts) {
            for (const Shape& whitener : {Shape{1}, Shape{s.c}, Shape{s.c, s.c}}) {
                for (const bool flat : {false, true}) {
                    shared<float>(s, flat, whitener, layout);
                    if (layout == Layout::contiguous) shared<double>(s, flat, whitener, layout);
                }
            }
        }
    }
}

TEST(gaussian_at_each_position) {
    for (const Size& s :
         {Size{0, 3, 2, 2}, Size{1, 1, 1, 1}, Size{11, 19, 3, 7}, Size{9, 2, 19, 19}, Size{1, 111, 1, 3}}) {
        for (const Layout layout : layouts) {
            by_position<float>(s, layout);
            by_position<double>(s, layout);
        }
    }
}

TEST(gaussian_fit) {
    for (const Layout layout : layouts) {
        fitted<float>(111, 1, 1, 19, layout);
        fitted<float>(30, 19, 1, 3, layout);
        fitted<double>(19, 5, 3, 7, layout);
    }
}

TEST(gaussian_keeps_nan) {
    Array<float> z({19, 19}), mean({19}), whitener({19, 19}), out({19});
    z.fill(1), mean.fill(2), whitener.fill(3);
    z.element(7 * 19 + 18) = std::numeric_limits<float>::quiet_NaN();
    gaussian(z, mean, whitener, out);
    for (std::int64_t i = 0; i < 19; ++i) CHECK(std::isnan(out.element(i)) == (i == 7));
}

}  // namespace

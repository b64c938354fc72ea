// Structural similarity (Wang et al. 2004), Gaussian window, weighted (biased) variances, data range 1. The window is
// cut at the border and its weights sum to one again. Part of kernels/distance.cpp; everything is in an anonymous
// namespace.
#pragma once

#include "ops/kernels/distance.hpp"
#include "ops/kernels/simd.hpp"

namespace normscan::kernels {
namespace {

template <class T>
constexpr T ssim_c1 = T(0.01 * 0.01);
template <class T>
constexpr T ssim_c2 = T(0.03 * 0.03);

// Pixels are shifted by the middle of 0..1, which variances do not feel: E[x^2] - E[x]^2 loses four times less.
template <class T>
constexpr T ssim_shift = T(0.5);

// Copies rows begin..end-1 of one channel, shifted, into rows of whole granules, filled with zero.
template <class T>
void load_rows(const Planes<const T>& plane, std::int64_t begin, std::int64_t end, T* into) {
    const std::int64_t width = ssim_width(plane.width);
    for (std::int64_t y = begin; y < end; ++y, into += width) {
        const T* const from = plane.data + y * plane.row;
        for (std::int64_t x = 0; x < plane.width; ++x) into[x] = from[x * plane.column] - ssim_shift<T>;
        for (std::int64_t x = plane.width; x < width; ++x) into[x] = T(0);
    }
}

// Five rows that the window runs along: with a border of `radius` zeros on both sides.
template <class T>
struct Bordered {
    T* data;
    std::int64_t step, radius, width;

    Bordered(T* scratch, std::int64_t w, std::int64_t r) : data(scratch), step(w + 2 * r), radius(r), width(w) {
        for (std::int64_t i = 0; i < 5 * step; ++i) data[i] = T(0);
    }
    T* row(int i) const { return data + i * step + radius; }
};

// Sums along rows: out[i][x] = share[x] sum_k weights[k] row_i[x + k - radius].
template <class T, int rows>
void blur_along(const Bordered<T>& from, const Window<T>& window, const T* share, T* out) {
    for (std::int64_t x = 0; x < from.width; x += lanes<T>) {
        Vec<T> sum[rows] = {};
        for (std::int64_t k = 0; k <= 2 * window.radius; ++k) {
            const T w = window.weights[k];
            for (int i = 0; i < rows; ++i) sum[i] += w * load(from.data + i * from.step + x + k);
        }
        for (int i = 0; i < rows; ++i) {
            store(out + i * from.width + x, share == nullptr ? sum[i] : sum[i] * load(share + x));
        }
    }
}

// Window means at row y of a, b, aa, bb, ab, into out [5][width]. a and b begin at row `top` of the image.
template <class T>
void moments(const T* a, const T* b, std::int64_t top, std::int64_t y, std::int64_t height, const Window<T>& window,
             const Bordered<T>& border, T* out) {
    const std::int64_t first = larger(0, y - window.radius), last = smaller(height - 1, y + window.radius);
    const T share = window.row_share[y];
    for (std::int64_t x = 0; x < border.width; x += lanes<T>) {
        Vec<T> sum[5] = {};
        for (std::int64_t r = first; r <= last; ++r) {
            const T w = window.weights[r - y + window.radius];
            const Vec<T> va = load(a + (r - top) * border.width + x), vb = load(b + (r - top) * border.width + x);
            const Vec<T> wa = w * va, wb = w * vb;
            sum[0] += wa;
            sum[1] += wb;
            sum[2] += wa * va;
            sum[3] += wb * vb;
            sum[4] += wa * vb;
        }
        for (int i = 0; i < 5; ++i) store(border.row(i) + x, sum[i] * share);
    }
    blur_along<T, 5>(border, window, window.column_share, out);
}

// The four factors of SSIM = (light contrast) / (light_norm contrast_norm) from the five moments. Without light that
// quotient is the contrast-structure factor alone, as in multi-scale SSIM (Wang et al. 2003, eq. 7).
template <class T>
struct Similarity {
    Vec<T> mean_a, mean_b;  // of the shifted pixels
    Vec<T> light, contrast, light_norm, contrast_norm;

    Similarity(const T* m, std::int64_t width, bool with_light) : mean_a(load(m)), mean_b(load(m + width)) {
        const Vec<T> a = mean_a + ssim_shift<T>, b = mean_b + ssim_shift<T>;
        light = with_light ? 2 * a * b + ssim_c1<T> : splat(T(1));
        light_norm = with_light ? a * a + b * b + ssim_c1<T> : splat(T(1));
        const Vec<T> var_a = load(m + 2 * width) - mean_a * mean_a, var_b = load(m + 3 * width) - mean_b * mean_b;
        contrast = 2 * (load(m + 4 * width) - mean_a * mean_b) + ssim_c2<T>;
        contrast_norm = var_a + var_b + ssim_c2<T>;
    }
    Vec<T> value() const { return (light * contrast) / (light_norm * contrast_norm); }
};

template <class T>
void ssim(const SsimForward<T>& f) {
    const std::int64_t width = ssim_width(f.a.width), rows = f.end - f.begin, radius = f.window.radius;
    const std::int64_t top = larger(0, f.begin - radius), bottom = smaller(f.height, f.end + radius);
    T* const a = f.scratch;
    T* const b = a + (rows + 2 * radius) * width;
    T* const m = b + (rows + 2 * radius) * width;
    T* const sum = m + 5 * width;
    const Bordered<T> border(sum + rows * width, width, radius);
    for (std::int64_t i = 0; i < rows * width; ++i) sum[i] = T(0);
    for (std::int64_t c = 0; c < f.channels; ++c) {
        load_rows<T>({f.a.data + c * f.a.channel, 0, f.a.row, f.a.column, f.a.width}, top, bottom, a);
        load_rows<T>({f.b.data + c * f.b.channel, 0, f.b.row, f.b.column, f.b.width}, top, bottom, b);
        for (std::int64_t y = f.begin; y < f.end; ++y) {
            moments(a, b, top, y, f.height, f.window, border, m);
            T* const to = sum + (y - f.begin) * width;
            for (std::int64_t x = 0; x < width; x += lanes<T>) {
                store(to + x, load(to + x) + (T(1) - Similarity<T>(m + x, width, f.with_light).value()));
            }
        }
    }
    const T share = T(1) / static_cast<T>(f.channels);
    for (std::int64_t y = f.begin; y < f.end; ++y) {
        T* const to = f.out.data + y * f.out.row;
        for (std::int64_t x = 0; x < f.out.width; ++x) to[x * f.out.column] = share * sum[(y - f.begin) * width + x];
    }
}

// Derivatives by the moments a, b, (aa and bb alike), ab at row y, times g, the row's and the columns' shares, into
// `maps` [4][height][width]: what the transposed window is run over.
template <class T>
void moment_gradients(const SsimBackward<T>& f, std::int64_t y, const T* m, const T* g, T* maps) {
    const std::int64_t width = ssim_width(f.a.width), plane = f.height * width;
    T* const to = maps + y * width;
    for (std::int64_t x = 0; x < width; x += lanes<T>) {
        const Similarity<T> s(m + x, width, f.with_light);
        const Vec<T> scale = load(g + x) * (f.factor * f.window.row_share[y]) * load(f.window.column_share + x);
        const Vec<T> inverse = T(1) / (s.light_norm * s.contrast_norm);
        const Vec<T> value = s.light * s.contrast * inverse;
        const Vec<T> by_square = -value / s.contrast_norm;  // of aa, and of bb
        const Vec<T> by_product = 2 * s.light * inverse;    // of ab
        const T light_share = f.with_light ? T(2) : T(0);
        const Vec<T> by_light = light_share * s.contrast * inverse;  // of the product of the means
        const Vec<T> by_norm = -light_share * value / s.light_norm;  // of the means' squares, halved
        const Vec<T> a = s.mean_a + ssim_shift<T>, b = s.mean_b + ssim_shift<T>;
        const Vec<T> by_a = by_light * b + by_norm * a - 2 * s.mean_a * by_square - s.mean_b * by_product;
        const Vec<T> by_b = by_light * a + by_norm * b - 2 * s.mean_b * by_square - s.mean_a * by_product;
        store(to + x, scale * by_a);
        store(to + plane + x, scale * by_b);
        store(to + 2 * plane + x, scale * by_square);
        store(to + 3 * plane + x, scale * by_product);
    }
}

// The transposed window at row y: plain sums, since the shares are in the maps already. out [4][width]
template <class T>
void transposed(const T* maps, std::int64_t y, std::int64_t height, const Window<T>& window, const Bordered<T>& border,
                T* out) {
    const std::int64_t first = larger(0, y - window.radius), last = smaller(height - 1, y + window.radius);
    const std::int64_t width = border.width, plane = height * width;
    for (std::int64_t x = 0; x < width; x += lanes<T>) {
        Vec<T> sum[4] = {};
        for (std::int64_t r = first; r <= last; ++r) {
            const T w = window.weights[r - y + window.radius];
            for (int i = 0; i < 4; ++i) sum[i] += w * load(maps + i * plane + r * width + x);
        }
        for (int i = 0; i < 4; ++i) store(border.row(i) + x, sum[i]);
    }
    blur_along<T, 4>(border, window, nullptr, out);
}

template <class T>
void ssim_backward(const SsimBackward<T>& f) {
    const std::int64_t width = ssim_width(f.a.width), plane = f.height * width;
    T* const a = f.scratch;
    T* const b = a + plane;
    T* const maps = b + plane;
    T* const m = maps + 4 * plane;
    const Bordered<T> border(m + 5 * width, width, f.window.radius);
    load_rows(f.a, 0, f.height, a);
    load_rows(f.b, 0, f.height, b);
    for (std::int64_t y = 0; y < f.height; ++y) {
        T* const g = maps + y * width;  // overwritten by the row's gradients in step with its reading
        moments(a, b, 0, y, f.height, f.window, border, m);
        for (std::int64_t x = 0; x < width; ++x) {
            g[x] = x < f.a.width ? f.grad_out.data[y * f.grad_out.row + x * f.grad_out.column] : T(0);
        }
        moment_gradients(f, y, m, g, maps);
    }
    for (std::int64_t y = 0; y < f.height; ++y) {
        transposed(maps, y, f.height, f.window, border, m);
        T *const to_a = f.grad_a.data + y * f.grad_a.row, *const to_b = f.grad_b.data + y * f.grad_b.row;
        for (std::int64_t x = 0; x < f.a.width; ++x) {
            const T pa = a[y * width + x], pb = b[y * width + x], square = 2 * m[2 * width + x], ab = m[3 * width + x];
            to_a[x * f.grad_a.column] = m[x] + square * pa + ab * pb;
            to_b[x * f.grad_b.column] = m[width + x] + square * pb + ab * pa;
        }
    }
}

}  // namespace
}  // namespace normscan::kernels

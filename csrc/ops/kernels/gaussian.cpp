#include "ops/kernels/gaussian.hpp"

#include "ops/kernels/gather.hpp"
#include "ops/kernels/gaussian_distance.hpp"

namespace normscan::kernels {
namespace {

constexpr std::int64_t B = gaussian_positions;

template <class T>
void forward(const GaussianForward<T>& a) {
    T* const x = a.scratch;
    T sum[B] = {};
    gather(a.z, a.first, a.count, a.channels, a.mean, x, B);
    add_squared_distances(a.whitener, a.form, a.channels, x, x + a.channels * B, sum);
    finish(a.output, sum, B);
    scatter(sum, a.out, a.first, a.count);
}

// d squared distance / d (z - mean) into `grad`, and the gradient of the factors 1/sigma.
template <class T>
void backward_scaled(const GaussianBackward<T>& a, const T* x, const T* g, T* grad) {
    for (std::int64_t c = 0; c < a.channels; ++c) {
        const std::int64_t at = a.form == Whitener::diagonal ? c : 0;
        const T w = a.whitener[at];
        T sum = T(0);
        for (std::int64_t p = 0; p < B; ++p) {
            const T scaled = 2 * g[p] * w * x[c * B + p];
            grad[c * B + p] = scaled * w;
            sum += scaled * x[c * B + p];
        }
        a.grad_whitener[at] += sum;
    }
}

// The same for a full whitener and y = W x: grad = W' (2 g y), grad_W = (2 g y) x'.
template <class T>
void backward_full(const GaussianBackward<T>& a, const T* x, const T* g, T* grad, T* y, T* x_rows) {
    const std::int64_t D = a.channels, width = (D + gaussian_granule - 1) / gaussian_granule * gaussian_granule;
    for (std::int64_t i = 0; i < D; ++i) {
        for (std::int64_t p = 0; p < B; ++p) y[i * B + p] *= 2 * g[p];
    }
    for (std::int64_t j = 0; j < D; j += gaussian_rows) {  // column j of W is zero above row j
        const Matrix<const T> turned = {a.whitener + j * D + j, 1, D};
        multiply(smaller(gaussian_rows, D - j), B, D - j, turned, y + j * B, B, grad + j * B, B, false);
    }
    for (std::int64_t p = 0; p < B; ++p) {
        for (std::int64_t c = 0; c < D; ++c) x_rows[p * width + c] = x[c * B + p];
        for (std::int64_t c = D; c < width; ++c) x_rows[p * width + c] = T(0);
    }
    for (std::int64_t i = 0; i < D; i += gaussian_rows) {
        const std::int64_t rows = smaller(gaussian_rows, D - i), columns = smaller(i + gaussian_rows, width);
        multiply(rows, columns, a.count, Matrix<const T>{y + i * B, B, 1}, x_rows, width, a.grad_whitener + i * width,
                 width, true);
    }
}

// g becomes the gradient of the squared distances, and for a full whitener y = W x.
template <class T>
void backward_output(const GaussianBackward<T>& a, const T* x, T* g, T* y) {
    for (std::int64_t p = 0; p < B; ++p) *a.grad_offset += g[p];
    const bool full = a.form == Whitener::full;
    for (std::int64_t i = 0; full && i < a.channels; i += gaussian_rows) {
        whiten(a.whitener, a.channels, i, smaller(gaussian_rows, a.channels - i), x, y + i * B);
    }
    T sum[B] = {};
    if (a.output.kind == OutputKind::saturated) {
        full ? add_squares(y, a.channels, sum) : add_squared_distances(a.whitener, a.form, a.channels, x, y, sum);
    }
    finish_backward(a.output, sum, g, B);
}

template <class T>
void backward(const GaussianBackward<T>& a) {
    T* const x = a.scratch;
    T* const grad = x + a.channels * B;
    T* const y = grad + a.channels * B;
    T* const x_rows = y + a.channels * B;
    T g[B] = {};
    gather(a.z, a.first, a.count, a.channels, a.mean, x, B);
    gather(a.grad_out, a.first, a.count, g);
    backward_output(a, x, g, y);
    if (a.form == Whitener::full) {
        backward_full(a, x, g, grad, y, x_rows);
    } else {
        backward_scaled(a, x, g, grad);
    }
    for (std::int64_t c = 0; c < a.channels; ++c) {
        T sum = T(0);
        for (std::int64_t p = 0; p < a.count; ++p) sum += grad[c * B + p];
        a.grad_mean[c] -= sum;
    }
    scatter(grad, B, a.grad_z, a.first, a.count, a.channels);
}

}  // namespace

const GaussianTable NORMSCAN_TABLE(gaussian) = {{forward<float>, backward<float>}, {forward<double>, backward<double>}};

}  // namespace normscan::kernels

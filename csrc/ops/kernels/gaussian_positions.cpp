#include "ops/kernels/gaussian_positions.hpp"

#include "ops/kernels/simd.hpp"

namespace normscan::kernels {
namespace {

constexpr std::int64_t N = position_images;

// The widest vector of this object that is no wider than the images.
template <class T>
struct LaneOf {
    using type = Vec<T>;
};
#if NORMSCAN_VECTOR_BYTES > 32
typedef float HalfF __attribute__((vector_size(32)));
template <>
struct LaneOf<float> {
    using type = HalfF;
};
#endif
template <class T>
using Lane = typename LaneOf<T>::type;

// A row of N values.
template <class T>
constexpr int lane_vectors = static_cast<int>(N * sizeof(T) / sizeof(Lane<T>));
// Rows of the triangle at a time: their sums fill half the registers.
template <class T>
constexpr int triangle_rows = 8 / lane_vectors<T>;

template <class T>
inline Lane<T> lane_at(const T* p) {
    Lane<T> v;
    __builtin_memcpy(&v, p, sizeof v);
    return v;
}

template <class T>
inline std::int64_t offset(const Planes<const T>& planes, std::int64_t position) {
    return position / planes.width * planes.row + position % planes.width * planes.column;
}

// x [count][C][N] = z - mean of a tile; lanes beyond the last image are 0.
template <class T>
void gather_tile(const GaussianPositions<T>& a, T* x) {
    std::int64_t z_at[position_tile], mean_at[position_tile];
    for (std::int64_t i = 0; i < a.count; ++i) {
        z_at[i] = offset(a.z, a.first + i);
        mean_at[i] = offset(a.mean, a.first + i);
    }
    for (std::int64_t c = 0; c < a.channels; ++c) {
        const T* const mean = a.mean.data + c * a.mean.channel;
        const T* const z = a.z.data + c * a.z.channel;
        for (std::int64_t n = 0; n < N; ++n) {
            T* const to = x + c * N + n;
            for (std::int64_t i = 0; i < a.count; ++i) {
                to[i * a.channels * N] = n < a.images ? z[n * a.z_image + z_at[i]] - mean[mean_at[i]] : T(0);
            }
        }
    }
}

// sum += (W x)_i^2 for the rows i = first..first+rows-1 of a triangle; row i has i + 1 entries.
template <class T, int rows>
inline void add_rows(const T* triangle, std::int64_t row_step, std::int64_t first, const T* x,
                     Lane<T> (&sum)[lane_vectors<T>]) {
    constexpr int width = lane_vectors<T>, step = static_cast<int>(N) / width;
    const T* row[rows];
    for (int r = 0; r < rows; ++r) {
        const std::int64_t i = first + r;
        row[r] = triangle + (row_step == 0 ? i * (i + 1) / 2 : i * row_step);
    }
    Lane<T> y[rows][width] = {};
    for (std::int64_t k = 0; k < first; ++k) {
        for (int w = 0; w < width; ++w) {
            const Lane<T> value = lane_at(x + k * N + w * step);
            for (int r = 0; r < rows; ++r) y[r][w] += row[r][k] * value;
        }
    }
    for (int k = 0; k < rows; ++k) {
        for (int w = 0; w < width; ++w) {
            const Lane<T> value = lane_at(x + (first + k) * N + w * step);
            for (int r = k; r < rows; ++r) y[r][w] += row[r][first + k] * value;
        }
    }
    for (int r = 0; r < rows; ++r) {
        for (int w = 0; w < width; ++w) sum[w] += y[r][w] * y[r][w];
    }
}

template <class T>
void forward(const GaussianPositions<T>& a) {
    constexpr int rows = triangle_rows<T>;
    gather_tile(a, a.scratch);
    for (std::int64_t p = 0; p < a.count; ++p) {
        const T* const x = a.scratch + p * a.channels * N;
        const T* const triangle = a.whitener.data + offset(a.whitener, a.first + p);
        Lane<T> sum[lane_vectors<T>] = {};
        std::int64_t i = 0;
        for (; i + rows <= a.channels; i += rows) add_rows<T, rows>(triangle, a.whitener.channel, i, x, sum);
        for (; i < a.channels; ++i) add_rows<T, 1>(triangle, a.whitener.channel, i, x, sum);
        T result[N];
        __builtin_memcpy(result, sum, sizeof result);
        const std::int64_t row = (a.first + p) / a.out.width, column = (a.first + p) % a.out.width;
        T* const out = a.out.data + row * a.out.row + column * a.out.column;
        for (std::int64_t n = 0; n < a.images; ++n) out[n * a.out_image] = result[n];
    }
}

}  // namespace

const GaussianPositionsTable NORMSCAN_TABLE(gaussian_positions) = {{forward<float>}, {forward<double>}};

}  // namespace normscan::kernels

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

// A block of rows is as many short streams, which the hardware's prefetch does not follow: each step over columns asks
// for one line that many bytes ahead (measured: the time of the triangles falls by a third).
constexpr int cache_line = 64, prefetch_bytes = 4096;

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

// Where the positions of a tile lie; whether they lie one after the other.
struct Places {
    std::int64_t at[position_tile];
    bool adjacent;
};

template <class T>
inline Places places(const Planes<const T>& planes, std::int64_t first, std::int64_t count) {
    Places found;
    for (std::int64_t i = 0; i < count; ++i) found.at[i] = offset(planes, first + i);
    found.adjacent = count == position_tile && planes.column == 1 && planes.row == planes.width;
    return found;
}

// to[i * step + n] = from[n][i]: three rounds of interleaving the first half of the rows with the second.
template <class T>
inline void transpose(const T (&from)[N][position_tile], T* to, std::int64_t step) {
    typedef T Row __attribute__((vector_size(N * sizeof(T))));
    static_assert(N == 8);
    for (std::int64_t i = 0; i < position_tile; i += N) {
        Row a[N], b[N];
        for (std::int64_t n = 0; n < N; ++n) __builtin_memcpy(&a[n], &from[n][i], sizeof(Row));
        for (int round = 0; round < 3; ++round) {
            for (int n = 0; n < N / 2; ++n) {
                b[2 * n] = __builtin_shufflevector(a[n], a[n + N / 2], 0, 8, 1, 9, 2, 10, 3, 11);
                b[2 * n + 1] = __builtin_shufflevector(a[n], a[n + N / 2], 4, 12, 5, 13, 6, 14, 7, 15);
            }
            __builtin_memcpy(a, b, sizeof a);
        }
        for (std::int64_t n = 0; n < N; ++n) __builtin_memcpy(to + (i + n) * step, &a[n], sizeof(Row));
    }
}

// x [position_tile][C][N] = z - mean of a tile; lanes beyond the last image are 0.
template <class T>
void gather_tile(const GaussianPositions<T>& a, T* x) {
    const Places z_at = places(a.z, a.first, a.count), mean_at = places(a.mean, a.first, a.count);
    const bool adjacent = z_at.adjacent && mean_at.adjacent;
    T tile[N][position_tile] = {};
    for (std::int64_t c = 0; c < a.channels; ++c) {
        const T* const mean = a.mean.data + c * a.mean.channel;
        const T* const z = a.z.data + c * a.z.channel;
        for (std::int64_t n = 0; n < a.images; ++n) {
            const T* const image = z + n * a.z_image;
            if (adjacent) {
                __builtin_prefetch(image + z_at.at[0] + 2 * a.z.channel);  // planes are too far apart for the hardware
                for (std::int64_t i = 0; i < position_tile; ++i) {
                    tile[n][i] = image[z_at.at[0] + i] - mean[mean_at.at[0] + i];
                }
            } else {
                for (std::int64_t i = 0; i < a.count; ++i) tile[n][i] = image[z_at.at[i]] - mean[mean_at.at[i]];
            }
        }
        transpose(tile, x + c * N, a.channels * N);
    }
}

// sum += (W x)_i^2 for the rows i = first..first+rows-1 of a triangle; row i has i + 1 entries.
template <class T, int rows>
inline void add_rows(const T* triangle, std::int64_t row_step, std::int64_t first, const T* x,
                     Lane<T> (&sum)[lane_vectors<T>]) {
    constexpr int width = lane_vectors<T>, step = static_cast<int>(N) / width;
    constexpr int columns = cache_line / (rows * static_cast<int>(sizeof(T)));  // that hold a cache line of a triangle
    const T* row[rows];
    for (int r = 0; r < rows; ++r) {
        const std::int64_t i = first + r;
        row[r] = triangle + (row_step == 0 ? i * (i + 1) / 2 : i * row_step);
    }
    const T* const next = row[0] + (row_step == 0 ? prefetch_bytes / static_cast<int>(sizeof(T)) : rows * row_step);
    Lane<T> y[rows][width] = {};
    const auto add = [&](std::int64_t k) {
        for (int w = 0; w < width; ++w) {
            const Lane<T> value = lane_at(x + k * N + w * step);
            for (int r = 0; r < rows; ++r) y[r][w] += row[r][k] * value;
        }
    };
    std::int64_t k = 0;
    for (; k + columns <= first; k += columns) {
        __builtin_prefetch(next + k * rows);
        for (int c = 0; c < columns; ++c) add(k + c);
    }
    for (; k < first; ++k) add(k);
    for (int corner = 0; corner < rows; ++corner) {
        for (int w = 0; w < width; ++w) {
            const Lane<T> value = lane_at(x + (first + corner) * N + w * step);
            for (int r = corner; r < rows; ++r) y[r][w] += row[r][first + corner] * value;
        }
    }
    for (int r = 0; r < rows; ++r) {
        for (int w = 0; w < width; ++w) sum[w] += y[r][w] * y[r][w];
    }
}

// log |det| of a triangle. The product of four floats neither overflows nor vanishes in double: a logarithm for each.
template <class T>
double log_determinant(const T* triangle, std::int64_t row_step, std::int64_t channels) {
    constexpr std::int64_t together = sizeof(T) == 4 ? 4 : 1;
    double sum = 0.0;
    for (std::int64_t first = 0; first < channels; first += together) {
        double product = 1.0;
        for (std::int64_t i = first; i < smaller(first + together, channels); ++i) {
            product *= absolute(triangle[i + (row_step == 0 ? i * (i + 1) / 2 : i * row_step)]);
        }
        sum += logarithm(product);
    }
    return sum;
}

template <class T>
void forward(const GaussianPositions<T>& a) {
    constexpr int rows = triangle_rows<T>;
    gather_tile(a, a.scratch);
    for (std::int64_t p = 0; p < a.count; ++p) {
        const T* const x = a.scratch + p * a.channels * N;
        const T* const triangle = a.whitener.data + offset(a.whitener, a.first + p);
        Lane<T> sum[lane_vectors<T>] = {};
        std::int64_t i = 0;  // the rows that fill no block come first, where they are short
        for (; i < a.channels % rows; ++i) add_rows<T, 1>(triangle, a.whitener.channel, i, x, sum);
        for (; i < a.channels; i += rows) add_rows<T, rows>(triangle, a.whitener.channel, i, x, sum);
        T result[granule<T>] = {};
        __builtin_memcpy(result, sum, sizeof sum);
        Output<T> output = a.output;
        if (output.kind == OutputKind::nll) {
            output.offset -= static_cast<T>(log_determinant(triangle, a.whitener.channel, a.channels));
        }
        finish(output, result, granule<T>);
        const std::int64_t row = (a.first + p) / a.out.width, column = (a.first + p) % a.out.width;
        T* const out = a.out.data + row * a.out.row + column * a.out.column;
        for (std::int64_t n = 0; n < a.images; ++n) out[n * a.out_image] = result[n];
    }
}

}  // namespace

const GaussianPositionsTable NORMSCAN_TABLE(gaussian_positions) = {{forward<float>}, {forward<double>}};

}  // namespace normscan::kernels

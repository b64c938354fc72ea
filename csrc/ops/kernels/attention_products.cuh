// The two products of attention, on tiles in shared memory, for one warp:
//
//   product      scores [warp_rows][64] += a [warp_rows][depth] b [64][depth]^T
//   accumulate   results [warp_rows][columns] += weights [warp_rows][64] tile [64][columns]
//
// Scores and results stay in registers: a lane holds `rows` rows of them, and `lanes` neighbouring lanes share a row.
// What lies in a lane's s[r][c] is row(r), column(c) of the scores; o[r][c] is row(r), out_column(c) of the results.
// Tiles have rows of stride_of(width), widths and depths are multiples of 16.
#pragma once

#include "ops/kernels/attention_tiles.cuh"
#include "ops/kernels/mma.cuh"

namespace normscan::cuda::attention_tiles {

__device__ __forceinline__ int lane() {
    return static_cast<int>(threadIdx.x % 32);
}

// 16 bytes of shared memory.
template <class T>
struct alignas(16) Pack {
    T v[16 / sizeof(T)];

    static __device__ __forceinline__ Pack at(const T* p) { return *reinterpret_cast<const Pack*>(p); }
};

// Multiply-adds of T. A lane has 8 rows and every 16th column: 128 multiply-adds of float for 12 loads of 16 bytes.
template <class T>
struct Exact {
    using Stored = T;
    using Sum = T;
    static constexpr int rows = 8, lanes = 16, warp_rows = 16;
    static constexpr int most_columns = sizeof(T) == sizeof(float) ? 128 : 32;
    static constexpr bool needs_weights = true;  // in shared memory, for accumulate
    static constexpr int unit = 16 / static_cast<int>(sizeof(T)), scores = side / lanes;

    static __device__ __forceinline__ int row(int r) { return lane() / 16 * 8 + r; }
    static __device__ __forceinline__ int column(int c) { return lane() % 16 + 16 * c; }
    static __device__ __forceinline__ int out_column(int c) {
        return 16 * unit * (c / unit) + unit * (lane() % 16) + c % unit;
    }
    static __device__ __forceinline__ T exponential(T x) { return attention_tiles::exponential(x); }

    static __device__ __forceinline__ void product(T (&s)[rows][scores], const T* a, const T* b, int stride,
                                                   int depth) {
        a += row(0) * stride;
        b += column(0) * stride;
        for (int d = 0; d < depth; d += unit) {
            Pack<T> y[scores];
            NORMSCAN_UNROLL for (int c = 0; c < scores; ++c) y[c] = Pack<T>::at(b + 16 * c * stride + d);
            NORMSCAN_UNROLL for (int r = 0; r < rows; ++r) {
                const Pack<T> x = Pack<T>::at(a + r * stride + d);
                NORMSCAN_UNROLL for (int c = 0; c < scores; ++c) {
                    NORMSCAN_UNROLL for (int e = 0; e < unit; ++e) s[r][c] += x.v[e] * y[c].v[e];
                }
            }
        }
    }

    static __device__ __forceinline__ void store_scores(T* to, const T (&s)[rows][scores]) {
        NORMSCAN_UNROLL for (int r = 0; r < rows; ++r) {
            NORMSCAN_UNROLL for (int c = 0; c < scores; ++c) to[row(r) * stride_of<T>(side) + column(c)] = s[r][c];
        }
    }

    // `weights`: 16 rows of stride_of(64) that are this warp's.
    template <int count>
    static __device__ __forceinline__ void accumulate(T (&o)[rows][count], const T (&s)[rows][scores], T* weights,
                                                      const T* tile, int stride, int width) {
        constexpr int between = stride_of<T>(side), groups = count / unit;
        store_scores(weights, s);
        __syncwarp();
        for (int j = 0; j < side; j += unit) {
            Pack<T> y[unit][groups] = {};
            NORMSCAN_UNROLL for (int n = 0; n < groups; ++n) {
                const int first = out_column(n * unit);
                if (first >= width) continue;
                NORMSCAN_UNROLL for (int e = 0; e < unit; ++e) y[e][n] = Pack<T>::at(tile + (j + e) * stride + first);
            }
            NORMSCAN_UNROLL for (int r = 0; r < rows; ++r) {
                const Pack<T> x = Pack<T>::at(weights + row(r) * between + j);
                NORMSCAN_UNROLL for (int e = 0; e < unit; ++e) {
                    NORMSCAN_UNROLL for (int c = 0; c < count; ++c) o[r][c] += x.v[e] * y[e][c / unit].v[c % unit];
                }
            }
        }
        __syncwarp();
    }
};

// What the two tensor-core forms share: fragments of m16n8, `blocks` of 16 rows below each other.
template <int blocks>
struct Fragments {
    using Sum = float;
    static constexpr int rows = 2 * blocks, lanes = 4, warp_rows = 16 * blocks, most_columns = 128;
    static constexpr bool needs_weights = false;
    static constexpr int scores = side / lanes;

    static __device__ __forceinline__ int row(int r) { return lane() / 4 + 8 * r; }
    static __device__ __forceinline__ int column(int c) { return 8 * (c / 2) + 2 * (lane() % 4) + c % 2; }
    static __device__ __forceinline__ int out_column(int c) { return column(c); }
    static __device__ __forceinline__ float exponential(float x) { return __expf(x); }

    static __device__ __forceinline__ void store_scores(float* to, const float (&s)[rows][scores]) {
        NORMSCAN_UNROLL for (int r = 0; r < rows; ++r) {
            NORMSCAN_UNROLL for (int c = 0; c < scores; ++c) to[row(r) * stride_of<float>(side) + column(c)] = s[r][c];
        }
    }

    // f(c) for the fragment of block m and columns 8 n, 8 n + 1, .. of x.
    template <int count, class F>
    static __device__ __forceinline__ void on(float (&x)[rows][count], int m, int n, F&& f) {
        float c[4] = {x[2 * m][2 * n], x[2 * m][2 * n + 1], x[2 * m + 1][2 * n], x[2 * m + 1][2 * n + 1]};
        f(c);
        x[2 * m][2 * n] = c[0];
        x[2 * m][2 * n + 1] = c[1];
        x[2 * m + 1][2 * n] = c[2];
        x[2 * m + 1][2 * n + 1] = c[3];
    }
};

// float16 or bfloat16. The weights are rounded to it too; sums are float's.
template <class Half, int blocks>
struct HalfCores : Fragments<blocks> {
    using Stored = Half;
    using Base = Fragments<blocks>;
    using Base::rows;
    using Base::scores;

    // Multiplies 16 x 16 numbers of x, for every block of rows, with two columns of 8: c += x y.
    template <int count>
    static __device__ __forceinline__ void multiply_two(float (&c)[rows][count], int n,
                                                        const std::uint32_t (&x)[blocks][4],
                                                        const std::uint32_t (&y)[4]) {
        NORMSCAN_UNROLL for (int m = 0; m < blocks; ++m) {
            NORMSCAN_UNROLL for (int i = 0; i < 2; ++i) {
                const std::uint32_t column[2] = {y[2 * i], y[2 * i + 1]};
                Base::on(c, m, n + i, [&](float (&part)[4]) { multiply<Half>(part, x[m], column); });
            }
        }
    }

    static __device__ __forceinline__ void product(float (&s)[rows][scores], const Half* a, const Half* b, int stride,
                                                   int depth) {
        a += lane() % 16 * stride + lane() / 16 * 8;
        b += (lane() % 8 + lane() / 16 * 8) * stride + lane() / 8 % 2 * 8;
        for (int k = 0; k < depth; k += 16) {
            std::uint32_t x[blocks][4];
            NORMSCAN_UNROLL for (int m = 0; m < blocks; ++m) load_matrices(x[m], a + m * 16 * stride + k);
            NORMSCAN_UNROLL for (int n = 0; n < side; n += 16) {
                std::uint32_t y[4];
                load_matrices(y, b + n * stride + k);
                multiply_two(s, n / 8, x, y);
            }
        }
    }

    // The scores of 16 columns are, where they lie, the left factor of a product over these 16. 32 columns of results
    // are worked on at once, 16 at the end of `width`.
    template <int count>
    static __device__ __forceinline__ void accumulate(float (&o)[rows][count], const float (&s)[rows][scores], float*,
                                                      const Half* tile, int stride, int width) {
        tile += lane() % 16 * stride + lane() / 16 * 8;
        std::uint32_t x[side / 16][blocks][4];
        NORMSCAN_UNROLL for (int k = 0; k < side / 16; ++k) {
            NORMSCAN_UNROLL for (int m = 0; m < blocks; ++m) {
                NORMSCAN_UNROLL for (int i = 0; i < 4; ++i) {
                    const int r = 2 * m + i % 2, c = 4 * k + i / 2 * 2;
                    x[k][m][i] = packed_floats<Half>(s[r][c], s[r][c + 1]);
                }
            }
        }
        NORMSCAN_UNROLL for (int n = 0; n < 4 * count; n += 32) {
            if (n + 32 <= width) {
                add_columns<2>(o, n, x, tile, stride);
            } else if (n < width) {
                add_columns<1>(o, n, x, tile, stride);
            }
        }
    }

    // Columns n.. of the results, 16 or twice 16, from weights x and the tile, whose pointer is the lane's.
    template <int groups, int count>
    static __device__ __forceinline__ void add_columns(float (&o)[rows][count], int n,
                                                       const std::uint32_t (&x)[side / 16][blocks][4], const Half* tile,
                                                       int stride) {
        NORMSCAN_UNROLL for (int k = 0; k < side / 16; ++k) {
            NORMSCAN_UNROLL for (int i = 0; i < groups; ++i) {
                std::uint32_t y[4];
                load_matrices_transposed(y, tile + k * 16 * stride + n + 16 * i);
                multiply_two(o, n / 8 + 2 * i, x[k], y);
            }
        }
    }
};

// float32 rounded to tf32 on its way into the products, the weights too.
template <int blocks>
struct Tf32Cores : Fragments<blocks> {
    using Stored = float;
    using Base = Fragments<blocks>;
    using Base::rows;
    using Base::scores;

    static __device__ __forceinline__ void product(float (&s)[rows][scores], const float* a, const float* b, int stride,
                                                   int depth) {
        a += lane() / 4 * stride + lane() % 4;
        b += lane() / 4 * stride + lane() % 4;
        for (int k = 0; k < depth; k += 8) {
            std::uint32_t x[blocks][4];
            NORMSCAN_UNROLL for (int m = 0; m < blocks; ++m) {
                NORMSCAN_UNROLL for (int i = 0; i < 4; ++i) {
                    x[m][i] = tf32(a[(16 * m + 8 * (i % 2)) * stride + k + 4 * (i / 2)]);
                }
            }
            NORMSCAN_UNROLL for (int n = 0; n < side / 8; ++n) {
                const std::uint32_t y[2] = {tf32(b[8 * n * stride + k]), tf32(b[8 * n * stride + k + 4])};
                NORMSCAN_UNROLL for (int m = 0; m < blocks; ++m) {
                    Base::on(s, m, n, [&](float (&c)[4]) { multiply_tf32(c, x[m], y); });
                }
            }
        }
    }

    // A lane has columns 2t, 2t + 1 of the scores, where the left factor wants t, t + 4: the sum over 8 takes them in
    // that order, and the rows of the tile with them. 16 columns of results are worked on at once.
    template <int count>
    static __device__ __forceinline__ void accumulate(float (&o)[rows][count], const float (&s)[rows][scores], float*,
                                                      const float* tile, int stride, int width) {
        tile += lane() % 4 * 2 * stride + lane() / 4;
        NORMSCAN_UNROLL for (int n = 0; n < count / 2; n += 2) {
            if (8 * n < width) add_columns(o, n, s, tile + 8 * n, stride);
        }
    }

    template <int count>
    static __device__ __forceinline__ void add_columns(float (&o)[rows][count], int n, const float (&s)[rows][scores],
                                                       const float* tile, int stride) {
        NORMSCAN_UNROLL for (int k = 0; k < side / 8; ++k) {
            std::uint32_t x[blocks][4];
            NORMSCAN_UNROLL for (int m = 0; m < blocks; ++m) {
                NORMSCAN_UNROLL for (int i = 0; i < 4; ++i) x[m][i] = tf32(s[2 * m + i % 2][2 * k + i / 2]);
            }
            NORMSCAN_UNROLL for (int i = 0; i < 2; ++i) {
                const float* const at = tile + 8 * k * stride + 8 * i;
                const std::uint32_t y[2] = {tf32(at[0]), tf32(at[stride])};
                NORMSCAN_UNROLL for (int m = 0; m < blocks; ++m) {
                    Base::on(o, m, n + i, [&](float (&c)[4]) { multiply_tf32(c, x[m], y); });
                }
            }
        }
    }
};

// Calls f.operator()<Mode>() for tensors of this dtype (checked before).
template <int blocks, class F>
void for_mode(std::string_view op, Stream stream, DType dtype, bool allow_tf32, F&& f) {
    if (dtype == DType::float16) return f.template operator()<HalfCores<__half, blocks>>();
    if (dtype == DType::bfloat16) return f.template operator()<HalfCores<__nv_bfloat16, blocks>>();
    if (dtype == DType::float64) return f.template operator()<Exact<double>>();
    if (allow_tf32 && attribute(op, stream, cudaDevAttrComputeCapabilityMajor) >= 8) {
        return f.template operator()<Tf32Cores<blocks>>();
    }
    f.template operator()<Exact<float>>();
}

// Calls f.operator()<columns>(): how many columns of results a block of this mode holds, of `wanted`. GPUs with little
// shared memory (64 KB: architecture 7.5) have no room for 128.
template <class Mode, class F>
void for_columns(std::string_view op, Stream stream, std::int64_t wanted, F&& f) {
    constexpr int most = Mode::most_columns;
    if constexpr (most > 64) {
        if (wanted <= 64 || shared_memory(op, stream) < 96 * 1024) return f.template operator()<64>();
    }
    f.template operator()<most>();
}

}  // namespace normscan::cuda::attention_tiles

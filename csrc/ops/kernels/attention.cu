// Attention on the GPU: online softmax over tiles of keys (FlashAttention-2: Dao 2023). A block takes 64 or 128 queries
// and up to 128 columns of the values, a warp 16 or 32 of the queries; more columns take more blocks, which compute the
// scores again. Bound by the multiply-adds, 2 L M (dk + dv) flops a head; what it reads of keys and values comes from
// the second cache.
#include <cfloat>

#include "normscan/cuda.hpp"
#include "ops/attention.hpp"
#include "ops/kernels/attention_products.cuh"

namespace normscan::cuda {
namespace {

using namespace attention_tiles;

template <class Mode>
struct Forward {
    using S = typename Mode::Stored;
    using A = typename Mode::Sum;
    Heads<const S> q, k, v, residual;  // residual without data: there is no gate
    Heads<S> out, attended;            // attended without data: nobody wants it
    Lines<A> lse;
    RelativeBias<A> bias;
    const A* gamma = nullptr;
    std::int64_t heads, queries, keys, key_depth, value_depth;
    std::int64_t tiles, parts;  // of the queries, of the columns of the values
    int depth, width;           // columns of q and k, and of v, in shared memory at once
    A scale;
};

// The shared memory of a block.
template <class Mode>
struct Shared {
    using S = typename Mode::Stored;
    using A = typename Mode::Sum;
    S *q, *k, *v;
    A* weights;            // of this warp
    std::int64_t* places;  // of the tile's keys in the bias

    static constexpr int rows = warps * Mode::warp_rows;

    static __host__ __device__ std::size_t bytes(int depth, int width) {
        const std::size_t tiles = static_cast<std::size_t>((rows + side) * stride_of<S>(depth)) +
                                  static_cast<std::size_t>(side * stride_of<S>(width));
        const std::size_t weights = Mode::needs_weights ? static_cast<std::size_t>(rows * stride_of<A>(side)) : 0;
        return tiles * sizeof(S) + weights * sizeof(A) + side * sizeof(std::int64_t);
    }

    __device__ Shared(int depth, int width) {
        places = dynamic_shared<std::int64_t>();
        q = reinterpret_cast<S*>(places + side);
        k = q + rows * stride_of<S>(depth);
        v = k + side * stride_of<S>(depth);
        weights = reinterpret_cast<A*>(v + side * stride_of<S>(width)) +
                  static_cast<int>(threadIdx.x / 32) * Mode::warp_rows * stride_of<A>(side);
    }
};

// What a block works on.
struct Place {
    std::int64_t image, head, first_query, first_column;
};

template <class Mode>
__device__ __forceinline__ Place place_of_block(const Forward<Mode>& a) {
    const std::int64_t block = blockIdx.x, rest = block / a.tiles / a.parts;
    return {rest / a.heads, rest % a.heads, block % a.tiles * Shared<Mode>::rows, block / a.tiles % a.parts * a.width};
}

// Starts to load columns `first`.. of the keys from `first_key` on, and of the queries where they are not there yet.
template <class Mode>
__device__ __forceinline__ void load_keys(const Forward<Mode>& a, const Shared<Mode>& shared, const Place& at,
                                          std::int64_t first_key, std::int64_t first) {
    load_tile(shared.k, side, a.depth, a.k.of(at.image, at.head), first_key, a.keys, first, a.key_depth);
    if (first_key == 0 || a.depth < a.key_depth) {
        load_tile(shared.q, Shared<Mode>::rows, a.depth, a.q.of(at.image, at.head), at.first_query, a.queries, first,
                  a.key_depth);
    }
    if (a.bias.table == nullptr || first > 0) return;
    for (int j = static_cast<int>(threadIdx.x); j < side; j += threads) {
        shared.places[j] = a.bias.place_of_key(first_key + j);
    }
}

// s = scale s + bias, -inf beyond the last key.
template <class Mode>
__device__ __forceinline__ void finish_scores(const Forward<Mode>& a, const Shared<Mode>& shared, const Place& at,
                                              std::int64_t first_key,
                                              typename Mode::Sum (&s)[Mode::rows][Mode::scores]) {
    using A = typename Mode::Sum;
    const A* const table = a.bias.table == nullptr ? nullptr : a.bias.table + at.head * a.bias.head;
    const int keys = within(a.keys - first_key, side), warp = static_cast<int>(threadIdx.x / 32) * Mode::warp_rows;
    NORMSCAN_UNROLL for (int r = 0; r < Mode::rows; ++r) {
        const std::int64_t i = at.first_query + warp + Mode::row(r);
        const A* const row =
            table == nullptr ? nullptr : table + a.bias.place_of_query(i < a.queries ? i : a.queries - 1);
        NORMSCAN_UNROLL for (int c = 0; c < Mode::scores; ++c) {
            const int j = Mode::column(c);
            A score = a.scale * s[r][c];
            if (row != nullptr && j < keys) score += row[-shared.places[j]];
            s[r][c] = j < keys ? score : static_cast<A>(-INFINITY);
        }
    }
}

// The running maximum of each row, this lane's share of its sum, and the results, which are all relative to that.
template <class Mode, int columns>
struct Running {
    using A = typename Mode::Sum;
    static constexpr int count = columns / Mode::lanes;
    A top[Mode::rows], sum[Mode::rows] = {}, o[Mode::rows][count] = {};

    __device__ Running() {  // finite, so that scores of -inf alone leave it where it is
        for (A& t : top) t = sizeof(A) == sizeof(double) ? static_cast<A>(-DBL_MAX) : static_cast<A>(-FLT_MAX);
    }

    // Leaves exp(s - maximum) in s.
    __device__ __forceinline__ void take(A (&s)[Mode::rows][Mode::scores]) {
        NORMSCAN_UNROLL for (int r = 0; r < Mode::rows; ++r) {
            A most = top[r];
            NORMSCAN_UNROLL for (int c = 0; c < Mode::scores; ++c) most = s[r][c] > most ? s[r][c] : most;
            NORMSCAN_UNROLL for (int bits = Mode::lanes / 2; bits > 0; bits /= 2) {
                const A other = __shfl_xor_sync(0xffffffffu, most, bits);
                most = other > most ? other : most;
            }
            const A shrink = Mode::exponential(top[r] - most);
            top[r] = most;
            sum[r] *= shrink;
            NORMSCAN_UNROLL for (int c = 0; c < Mode::scores; ++c) {
                s[r][c] = Mode::exponential(s[r][c] - most);
                sum[r] += s[r][c];
            }
            NORMSCAN_UNROLL for (int c = 0; c < count; ++c) o[r][c] *= shrink;
        }
    }
};

// Divides the results by their sums, takes them through the gate and writes them.
template <class Mode, int columns>
__device__ __forceinline__ void write(const Forward<Mode>& a, const Place& at, Running<Mode, columns>& found) {
    using S = typename Mode::Stored;
    using A = typename Mode::Sum;
    const auto element = [&](const auto& of, std::int64_t i, std::int64_t j) {
        return of.data + at.image * of.image + at.head * of.head + i * of.row + j * of.column;
    };
    const A gamma = a.gamma == nullptr ? A(1) : *a.gamma;
    const std::int64_t first = at.first_query + static_cast<int>(threadIdx.x / 32) * Mode::warp_rows;
    NORMSCAN_UNROLL for (int r = 0; r < Mode::rows; ++r) {
        A sum = found.sum[r];
        NORMSCAN_UNROLL for (int bits = Mode::lanes / 2; bits > 0; bits /= 2) {
            sum += __shfl_xor_sync(0xffffffffu, sum, bits);
        }
        const std::int64_t i = first + Mode::row(r);
        if (i >= a.queries) continue;
        if (Mode::column(0) == 0 && at.first_column == 0)
            a.lse.of(at.image, at.head)[i * a.lse.row] = found.top[r] + logarithm(sum);
        const A share = A(1) / sum;
        NORMSCAN_UNROLL for (int c = 0; c < Running<Mode, columns>::count; ++c) {
            const std::int64_t j = at.first_column + Mode::out_column(c);
            if (Mode::out_column(c) >= a.width || j >= a.value_depth) continue;
            A result = found.o[r][c] * share;
            if (a.attended.data != nullptr) *element(a.attended, i, j) = narrowed<S>(result);
            if (a.residual.data != nullptr) result = widened(*element(a.residual, i, j)) + gamma * result;
            *element(a.out, i, j) = narrowed<S>(result);
        }
    }
}

// While the scores of a tile are computed its values are on their way, and while these are added up, the next keys.
template <class Mode, int columns>
__global__ void __launch_bounds__(threads) forward_kernel(Forward<Mode> a) {
    const Shared<Mode> shared(a.depth, a.width);
    const Place at = place_of_block(a);
    const auto* const query =
        shared.q + static_cast<int>(threadIdx.x / 32) * Mode::warp_rows * stride_of<typename Mode::Stored>(a.depth);
    const bool works = at.first_query + static_cast<int>(threadIdx.x / 32) * Mode::warp_rows < a.queries;
    Running<Mode, columns> found;
    load_keys(a, shared, at, 0, 0);
    for (std::int64_t j = 0; j < a.keys; j += side) {
        typename Mode::Sum s[Mode::rows][Mode::scores] = {};
        for (std::int64_t first = 0; first == 0 || first < a.key_depth; first += a.depth) {
            if (first > 0) {
                __syncthreads();
                load_keys(a, shared, at, j, first);
            }
            await_copies();
            __syncthreads();
            if (first == 0) {
                load_tile(shared.v, side, a.width, a.v.of(at.image, at.head), j, a.keys, at.first_column,
                          a.value_depth);
            }
            if (works) Mode::product(s, query, shared.k, stride_of<typename Mode::Stored>(a.depth), a.depth);
        }
        if (works) {
            finish_scores(a, shared, at, j, s);
            found.take(s);
        }
        await_copies();
        __syncthreads();
        if (j + side < a.keys) load_keys(a, shared, at, j + side, 0);
        if (works) {
            Mode::accumulate(found.o, s, shared.weights, shared.v, stride_of<typename Mode::Stored>(a.width), a.width);
        }
    }
    write<Mode, columns>(a, at, found);
}

// The arguments of a call.
struct Call {
    AttentionSizes sizes;
    const Tensor &q, &k, &v, &out, &lse;
    double scale;
    const GridBias* bias;
    const Gate* gate;
};

template <class Mode, int columns>
void run(Stream stream, const Call& call) {
    using S = typename Mode::Stored;
    using A = typename Mode::Sum;
    const AttentionSizes& s = call.sizes;
    Forward<Mode> a;
    a.q = heads_of<const S>(call.q);
    a.k = heads_of<const S>(call.k);
    a.v = heads_of<const S>(call.v);
    a.out = heads_of<S>(call.out);
    a.lse = lines_of<A>(call.lse);
    a.bias = relative_bias<A>(call.bias);
    if (call.gate != nullptr) {
        a.residual = heads_of<const S>(call.gate->residual);
        a.gamma = call.gate->gamma.as<const A>();
        if (call.gate->attended != nullptr) a.attended = heads_of<S>(*call.gate->attended);
    }
    a.heads = s.heads, a.queries = s.queries, a.keys = s.keys;
    a.key_depth = s.key_depth, a.value_depth = s.value_depth;
    a.width = rounded(s.value_depth < columns ? s.value_depth : columns);
    a.depth = fitting("attention", stream, s.key_depth, [&](int d) { return Shared<Mode>::bytes(d, a.width); });
    a.tiles = ceil_div(s.queries, Shared<Mode>::rows);
    a.parts = ceil_div(s.value_depth, a.width);
    if (a.parts == 0) a.parts = 1;  // somebody has to write lse
    a.scale = static_cast<A>(call.scale);
    const Grid grid = {blocks_for(s.images * s.heads * a.tiles * a.parts, 1), threads,
                       Shared<Mode>::bytes(a.depth, a.width)};
    check_shared("attention", stream, grid.shared, call.q.dtype);
    launch("attention", stream, grid, forward_kernel<Mode, columns>, a);
}

// 32 queries a warp read shared memory half as often as 16, where there are blocks enough for all multiprocessors.
bool has_many_blocks(Stream stream, const AttentionSizes& s) {
    const std::int64_t blocks = s.images * s.heads * ceil_div(s.queries, 2 * side);
    return blocks >= 2 * attribute("attention", stream, cudaDevAttrMultiProcessorCount);
}

}  // namespace

void attention(Stream stream, const Tensor& q, const Tensor& k, const Tensor& v, const Tensor& out, const Tensor& lse,
               double scale, const GridBias* bias, const Gate* gate, bool allow_tf32) {
    const Call call = {check_attention(q, k, v, out, lse, bias, gate), q, k, v, out, lse, scale, bias, gate};
    const auto with = [&]<class Mode>() {
        for_columns<Mode>("attention", stream, call.sizes.value_depth,
                          [&]<int columns>() { run<Mode, columns>(stream, call); });
    };
    if (has_many_blocks(stream, call.sizes)) return for_mode<2>("attention", stream, q.dtype, allow_tf32, with);
    for_mode<1>("attention", stream, q.dtype, allow_tf32, with);
}

}  // namespace normscan::cuda

// One gradient of attention on the GPU, by recomputation. With G the gradient of the output and P the probabilities,
//
//   dv = P^T G     dS = P (G v^T - rowsum(G out))     dq = scale dS k     dk = scale dS^T q     dbias = dS summed
//
// The kernel makes one of dv, dk and dq at a launch: a block owns 64 rows of the gradient (and up to 128 of its
// columns), goes over all tiles of the other side in order, and adds up in registers, so nothing is added by two blocks
// and results do not depend on when blocks run. That takes 5 dk + 3 dv multiply-adds for each score, where a pass that
// shares P between the three needs 3 dk + 2 dv, but atomic additions or a workspace of L x M / 64 numbers besides.
// Bound by those multiply-adds. 16-bit dS are rounded as P is: scale losses as for any training in float16.
#pragma once

#include "ops/kernels/attention_products.cuh"

namespace normscan::cuda::attention_tiles {

template <class Mode>
struct Gradient {
    using S = typename Mode::Stored;
    using A = typename Mode::Sum;
    Heads<const S> row_side, column_side;      // whose products are the scores: q and k, or k and q
    Heads<const S> row_output, column_output;  // whose products are G v^T; without data the weights are P, else dS
    Heads<const S> source;                     // of the columns' side; `out` is weights times it
    Heads<S> out;
    Lines<const A> lse;
    const A* delta;  // rowsum(G out) [N,H,L]
    RelativeBias<A> bias;
    A* tables = nullptr;       // of the blocks that also sum dS by relative position
    const A* gamma = nullptr;  // G counts so many times
    std::int64_t images, heads, rows, columns, key_depth, value_depth, channels;
    std::int64_t tiles, parts, shares;    // of the rows, of the channels, of images x tiles
    int side_depth, output_depth, width;  // columns in shared memory at once
    bool source_is_there;                 // as column_side
    A scale;
};

// The shared memory of a block.
template <class Mode>
struct GradientTiles {
    using S = typename Mode::Stored;
    using A = typename Mode::Sum;
    std::int64_t* places;  // of the columns in the bias
    A *lse, *delta;        // of the queries
    int *row_x, *column_x;
    S *row_side, *column_side, *row_output, *column_output, *source;
    A* weights;

    // Without output, output_depth is 0; without a source of its own, width.
    static __host__ __device__ std::size_t bytes(int side_depth, int output_depth, int width, bool weights) {
        const int output = output_depth > 0 ? 2 * side * stride_of<S>(output_depth) : 0;
        const int source = width > 0 ? side * stride_of<S>(width) : 0;
        const int tiles = 2 * side * stride_of<S>(side_depth) + output + source;
        const int own = Mode::needs_weights || weights ? side * stride_of<A>(side) : 0;
        return side * (sizeof(std::int64_t) + 2 * sizeof(A) + 2 * sizeof(int)) +
               static_cast<std::size_t>(tiles) * sizeof(S) + static_cast<std::size_t>(own) * sizeof(A);
    }

    __device__ explicit GradientTiles(const Gradient<Mode>& a) {
        places = dynamic_shared<std::int64_t>();
        lse = reinterpret_cast<A*>(places + side);
        delta = lse + side;
        row_x = reinterpret_cast<int*>(delta + side);
        column_x = row_x + side;
        row_side = reinterpret_cast<S*>(column_x + side);
        column_side = row_side + side * stride_of<S>(a.side_depth);
        row_output = column_side + side * stride_of<S>(a.side_depth);
        const int output = a.row_output.data == nullptr ? 0 : side * stride_of<S>(a.output_depth);
        column_output = row_output + output;
        source = column_output + output;
        weights = reinterpret_cast<A*>(source + (a.source_is_there ? 0 : side * stride_of<S>(a.width)));
    }
};

// What a block works on at the moment.
struct GradientPlace {
    std::int64_t image, head, first_row, first_column, first_channel;
};

// Starts to load columns `first`.. of both factors of a product: of the rows only where they are not there yet.
template <class T>
__device__ __forceinline__ void load_factors(T* row_tile, T* column_tile, int width, const Heads<const T>& of_rows,
                                             const Heads<const T>& of_columns, const GradientPlace& at,
                                             std::int64_t rows, std::int64_t columns, std::int64_t depth,
                                             std::int64_t first) {
    if (at.first_column == 0 || width < depth) {
        load_tile(row_tile, side, width, of_rows.of(at.image, at.head), at.first_row, rows, first, depth);
    }
    load_tile(column_tile, side, width, of_columns.of(at.image, at.head), at.first_column, columns, first, depth);
}

// Starts to load what a tile needs first, and fills in what is known of its queries and columns.
template <class Mode, bool rows_are_queries>
__device__ __forceinline__ void begin_tile(const Gradient<Mode>& a, const GradientTiles<Mode>& shared,
                                           const GradientPlace& at) {
    using A = typename Mode::Sum;
    load_factors(shared.row_side, shared.column_side, a.side_depth, a.row_side, a.column_side, at, a.rows, a.columns,
                 a.key_depth, 0);
    if (a.row_output.data != nullptr) {
        load_factors(shared.row_output, shared.column_output, a.output_depth, a.row_output, a.column_output, at, a.rows,
                     a.columns, a.value_depth, 0);
    }
    if (!a.source_is_there) {
        load_tile(shared.source, side, a.width, a.source.of(at.image, at.head), at.first_column, a.columns,
                  at.first_channel, a.channels);
    }
    const std::int64_t first = rows_are_queries ? at.first_row : at.first_column;
    const std::int64_t queries = rows_are_queries ? a.rows : a.columns;
    for (int i = static_cast<int>(threadIdx.x); i < side; i += threads) {
        const bool exists = first + i < queries;
        shared.lse[i] = exists ? a.lse.of(at.image, at.head)[(first + i) * a.lse.row] : A(0);
        shared.delta[i] = exists ? a.delta[(at.image * a.heads + at.head) * queries + first + i] : A(0);
        if (a.bias.table == nullptr) continue;
        const std::int64_t column = at.first_column + i;
        shared.places[i] = rows_are_queries ? a.bias.place_of_key(column) : a.bias.place_of_query(column);
        shared.row_x[i] = static_cast<int>((at.first_row + i) % a.bias.width);
        shared.column_x[i] = static_cast<int>(column % a.bias.width);
    }
}

// s += the product of the factors, whose first columns are there.
template <class Mode>
__device__ __forceinline__ void multiply_factors(typename Mode::Sum (&s)[Mode::rows][Mode::scores],
                                                 typename Mode::Stored* row_tile, typename Mode::Stored* column_tile,
                                                 int width, const Heads<const typename Mode::Stored>& of_rows,
                                                 const Heads<const typename Mode::Stored>& of_columns,
                                                 const GradientPlace& at, std::int64_t rows, std::int64_t columns,
                                                 std::int64_t depth) {
    const int stride = stride_of<typename Mode::Stored>(width), warp = static_cast<int>(threadIdx.x / 32);
    const bool works = at.first_row + warp * Mode::warp_rows < rows;
    for (std::int64_t first = 0; first == 0 || first < depth; first += width) {
        if (first > 0) {
            __syncthreads();
            load_factors(row_tile, column_tile, width, of_rows, of_columns, at, rows, columns, depth, first);
            await_copies();
            __syncthreads();
        }
        if (works) Mode::product(s, row_tile + warp * Mode::warp_rows * stride, column_tile, stride, width);
    }
}

// From scores in s and G v^T in g: P, or dS, in s; zero outside of the matrix.
template <class Mode, bool rows_are_queries>
__device__ __forceinline__ void weigh(const Gradient<Mode>& a, const GradientTiles<Mode>& shared,
                                      const GradientPlace& at, typename Mode::Sum (&s)[Mode::rows][Mode::scores],
                                      const typename Mode::Sum (&g)[Mode::rows][Mode::scores]) {
    using A = typename Mode::Sum;
    const A gamma = a.gamma == nullptr ? A(1) : *a.gamma;
    const A* const table = a.bias.table == nullptr ? nullptr : a.bias.table + at.head * a.bias.head;
    const int warp = static_cast<int>(threadIdx.x / 32) * Mode::warp_rows;
    const int rows = within(a.rows - at.first_row, side), columns = within(a.columns - at.first_column, side);
    NORMSCAN_UNROLL for (int r = 0; r < Mode::rows; ++r) {
        const int i = warp + Mode::row(r);
        std::int64_t place = 0;
        if (table != nullptr && i < rows) {
            place = rows_are_queries ? a.bias.place_of_query(at.first_row + i) : a.bias.place_of_key(at.first_row + i);
        }
        NORMSCAN_UNROLL for (int c = 0; c < Mode::scores; ++c) {
            const int j = Mode::column(c), query = rows_are_queries ? i : j;
            const bool exists = i < rows && j < columns;
            A score = a.scale * s[r][c];
            if (table != nullptr && exists) {
                score += table[rows_are_queries ? place - shared.places[j] : shared.places[j] - place];
            }
            const A p = Mode::exponential(score - shared.lse[query]);
            const A weight = a.row_output.data == nullptr ? p : p * (gamma * (g[r][c] - shared.delta[query]));
            s[r][c] = exists ? weight : A(0);
        }
    }
}

// Adds dS of a tile to the block's own table. Pairs of a diagonal, i - j = d, have one place in the table where the
// query's x is not left of the key's, and one where it is. A thread takes a diagonal, so no two add to one place.
template <class Mode>
__device__ __forceinline__ void add_to_table(const Gradient<Mode>& a, const GradientTiles<Mode>& shared,
                                             const GradientPlace& at, typename Mode::Sum* table) {
    using A = typename Mode::Sum;
    const int rows = within(a.rows - at.first_row, side), columns = within(a.columns - at.first_column, side);
    const int d = static_cast<int>(threadIdx.x) - (side - 1), stride = stride_of<A>(side);
    A sum[2] = {};
    bool found[2] = {};
    const int end = rows < columns + d ? rows : columns + d;
    for (int i = d > 0 ? d : 0; i < end; ++i) {
        const int left = shared.row_x[i] < shared.column_x[i - d] ? 1 : 0;
        const A weight = shared.weights[i * stride + i - d];
        if (left == 1) {
            sum[1] += weight;
        } else {
            sum[0] += weight;
        }
        found[0] = found[0] || left == 0;
        found[1] = found[1] || left == 1;
    }
    const std::int64_t width = a.bias.width, apart = at.first_row - at.first_column + d;
    const std::int64_t x = (apart % width + width) % width, y = (apart - x) / width;
    const std::int64_t place = (a.bias.height - 1 + y) * (2 * width - 1) + width - 1 + x;
    if (found[0]) table[place] += sum[0];
    if (found[1]) table[place + 2 * width - 1 - width] += sum[1];  // one row down, `width` to the left
}

template <class Mode, int count>
__device__ __forceinline__ void write_gradient(const Gradient<Mode>& a, const GradientPlace& at,
                                               const typename Mode::Sum (&o)[Mode::rows][count]) {
    using A = typename Mode::Sum;
    const A factor = a.row_output.data != nullptr ? a.scale : a.gamma == nullptr ? A(1) : *a.gamma;
    const Rows<typename Mode::Stored> out = a.out.of(at.image, at.head);
    const std::int64_t first = at.first_row + static_cast<int>(threadIdx.x / 32) * Mode::warp_rows;
    NORMSCAN_UNROLL for (int r = 0; r < Mode::rows; ++r) {
        const std::int64_t i = first + Mode::row(r);
        if (i >= a.rows) continue;
        NORMSCAN_UNROLL for (int c = 0; c < count; ++c) {
            const std::int64_t j = at.first_channel + Mode::out_column(c);
            if (Mode::out_column(c) >= a.width || j >= a.channels) continue;
            out.data[i * out.row + j * out.column] = narrowed<typename Mode::Stored>(factor * o[r][c]);
        }
    }
}

// A block makes channels first_channel.. of every `shares`-th tile of rows of one head; without tables there are as
// many shares as tiles.
template <class Mode, int columns, bool rows_are_queries>
__global__ void __launch_bounds__(threads) gradient_kernel(Gradient<Mode> a) {
    using S = typename Mode::Stored;
    using A = typename Mode::Sum;
    const GradientTiles<Mode> shared(a);
    const std::int64_t share = blockIdx.x % a.shares, rest = blockIdx.x / a.shares;
    GradientPlace at = {0, rest / a.parts, 0, 0, rest % a.parts * a.width};
    const int warp = static_cast<int>(threadIdx.x / 32) * Mode::warp_rows;
    A* table = nullptr;
    if (a.tables != nullptr && at.first_channel == 0) {
        const std::int64_t numbers = (2 * a.bias.height - 1) * (2 * a.bias.width - 1);
        table = a.tables + (at.head * a.shares + share) * numbers;
        for (std::int64_t x = threadIdx.x; x < numbers; x += threads) table[x] = A(0);
    }
    const S* const source = a.source_is_there ? shared.column_side + at.first_channel : shared.source;
    const int source_depth = a.source_is_there ? a.side_depth : a.width;
    const int width = a.source_is_there ? within(a.side_depth - at.first_channel, a.width) : a.width;
    for (std::int64_t item = share; item < a.images * a.tiles; item += a.shares) {
        at.image = item / a.tiles;
        at.first_row = item % a.tiles * side;
        A o[Mode::rows][columns / Mode::lanes] = {};
        for (at.first_column = 0; at.first_column < a.columns; at.first_column += side) {
            __syncthreads();
            begin_tile<Mode, rows_are_queries>(a, shared, at);
            await_copies();
            __syncthreads();
            A s[Mode::rows][Mode::scores] = {}, g[Mode::rows][Mode::scores] = {};
            multiply_factors<Mode>(s, shared.row_side, shared.column_side, a.side_depth, a.row_side, a.column_side, at,
                                   a.rows, a.columns, a.key_depth);
            if (a.row_output.data != nullptr) {
                multiply_factors<Mode>(g, shared.row_output, shared.column_output, a.output_depth, a.row_output,
                                       a.column_output, at, a.rows, a.columns, a.value_depth);
            }
            if (at.first_row + warp < a.rows) {
                weigh<Mode, rows_are_queries>(a, shared, at, s, g);
                Mode::accumulate(o, s, shared.weights + warp * stride_of<A>(side), source, stride_of<S>(source_depth),
                                 width);
            }
            if (table == nullptr) continue;
            if (!Mode::needs_weights) Mode::store_scores(shared.weights + warp * stride_of<A>(side), s);
            __syncthreads();
            add_to_table(a, shared, at, table);
        }
        write_gradient(a, at, o);
    }
}

}  // namespace normscan::cuda::attention_tiles

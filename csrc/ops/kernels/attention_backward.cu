// The backward pass of attention on the GPU: rowsum(G out) first, then a gradient at a time (attention_gradient.cuh),
// then what blocks have summed by relative position, and the gradient of gamma.
#include "normscan/cuda.hpp"
#include "ops/attention.hpp"
#include "ops/check.hpp"
#include "ops/dispatch.hpp"
#include "ops/kernels/attention_gradient.cuh"
#include "ops/kernels/workspace.cuh"

namespace normscan::cuda {
namespace {

using namespace attention_tiles;

constexpr std::string_view op = "attention_backward";

template <class S, class A>
struct Delta {
    Heads<const S> grad_out, out;
    A* delta;
    std::int64_t images, heads, queries, value_depth;
};

// delta[n,h,i] = sum over channels of grad_out out: a warp for a row, or where rows lie side by side a lane for a row.
// Memory-bound.
template <class S, class A>
__global__ void __launch_bounds__(threads) delta_kernel(Delta<S, A> a) {
    const std::int64_t rows = a.images * a.heads * a.queries, thread = std::int64_t{blockIdx.x} * threads + threadIdx.x;
    const bool together = a.grad_out.column == 1;
    const std::int64_t row = together ? thread / 32 : thread, lane = together ? threadIdx.x % 32 : 0;
    A sum = A(0);
    if (row < rows) {
        const std::int64_t n = row / a.queries / a.heads, h = row / a.queries % a.heads, i = row % a.queries;
        const S* const g = a.grad_out.of(n, h).data + i * a.grad_out.row;
        const S* const out = a.out.of(n, h).data + i * a.out.row;
        for (std::int64_t c = lane; c < a.value_depth; c += together ? 32 : 1) {
            sum += widened(g[c * a.grad_out.column]) * widened(out[c * a.out.column]);
        }
    }
    if (together) sum = warp_sum(sum);
    if (row < rows && lane == 0) a.delta[row] = sum;
}

// grad_gamma = the sum of all delta, by one block in a fixed order, so that it is the same every time.
template <class A>
__global__ void __launch_bounds__(threads)
    gamma_kernel(const A* __restrict__ delta, std::int64_t count, A* grad_gamma) {
    double sum = 0.0;
    for (std::int64_t i = threadIdx.x; i < count; i += threads) sum += static_cast<double>(delta[i]);
    sum = warp_sum(sum);
    double* const sums = dynamic_shared<double>();
    if (threadIdx.x % 32 == 0) sums[threadIdx.x / 32] = sum;
    __syncthreads();
    if (threadIdx.x > 0) return;
    for (int i = 1; i < warps; ++i) sum += sums[i];
    *grad_gamma = static_cast<A>(sum);
}

template <class A>
struct Tables {
    const A* tables;  // [heads][shares][height][width], of the table
    A* grad_bias;
    std::int64_t head, row, heads, shares, height, width;
};

// The tables of all blocks of a head, added in order. Memory-bound.
template <class A>
__global__ void __launch_bounds__(threads) tables_kernel(Tables<A> a) {
    const std::int64_t numbers = a.height * a.width, step = std::int64_t{gridDim.x} * threads;
    for (std::int64_t i = std::int64_t{blockIdx.x} * threads + threadIdx.x; i < a.heads * numbers; i += step) {
        const std::int64_t h = i / numbers, x = i % numbers;
        A sum = A(0);
        for (std::int64_t share = 0; share < a.shares; ++share) sum += a.tables[(h * a.shares + share) * numbers + x];
        a.grad_bias[h * a.head + x / a.width * a.row + x % a.width] = sum;
    }
}

// delta, and the tables of the blocks that make dq. There are enough of these to fill a GPU, but no more than 64 MB
// unless tables are huge, and as many on every GPU, so that results are equal.
template <class A>
struct Scratch {
    A *delta, *tables = nullptr;
    std::int64_t shares;

    Scratch(Workspace& room, const Tensor& q, const GridBias* bias)
        : delta(room.take<A>(q.size(0) * q.size(1) * q.size(2))), shares(q.size(0) * ceil_div(q.size(2), side)) {
        if (bias == nullptr) return;
        const std::int64_t heads = q.size(1), table = bias->table.size(1) * bias->table.size(2);
        if (heads == 0 || table == 0) return;
        std::int64_t most = (std::int64_t{64} << 20) / (table * static_cast<std::int64_t>(sizeof(A)));
        most = (most < 128 ? 128 : most > 512 ? 512 : most) / heads;
        if (most < 1) most = 1;
        if (shares > most) shares = most;
        tables = room.take<A>(heads * shares * table);
    }
};

// The arguments of a call; the pointers may be nullptr.
struct Call {
    AttentionSizes sizes;
    const Tensor &grad_out, &q, &k, &v, &out, &lse, &grad_q, &grad_k, &grad_v, &workspace;
    double scale;
    const GridBias* bias;
    const Tensor* grad_bias;
    const GateGradient* gate;
};

// What all three gradients share.
template <class Mode>
Gradient<Mode> gradient(const Call& call, const typename Mode::Sum* delta) {
    using A = typename Mode::Sum;
    Gradient<Mode> a;
    a.lse = lines_of<const A>(call.lse);
    a.delta = delta;
    a.bias = relative_bias<A>(call.bias);
    if (call.gate != nullptr) a.gamma = call.gate->gamma.as<const A>();
    a.images = call.sizes.images, a.heads = call.sizes.heads;
    a.key_depth = call.sizes.key_depth, a.value_depth = call.sizes.value_depth;
    a.scale = static_cast<A>(call.scale);
    return a;
}

// Fills in how the work is cut and launches.
template <bool rows_are_queries, class Mode>
void run(Stream stream, Gradient<Mode> a, const Tensor& out) {
    using S = typename Mode::Stored;
    a.out = heads_of<S>(out);
    a.rows = out.size(2), a.channels = out.size(3);
    a.tiles = ceil_div(a.rows, side);
    for_columns<Mode>(op, stream, a.channels, [&]<int columns>() {
        a.width = rounded(a.channels < columns ? a.channels : columns);
        a.parts = ceil_div(a.channels, a.width);
        if (a.parts == 0 && a.tables != nullptr) a.parts = 1;  // somebody has to sum by relative position
        const bool output = a.row_output.data != nullptr;
        const auto bytes = [&](int side_depth, int output_depth) {
            a.source_is_there = output && side_depth >= a.key_depth;  // that of dv is the gradient of the output
            return GradientTiles<Mode>::bytes(side_depth, output ? output_depth : 0, a.source_is_there ? 0 : a.width,
                                              a.tables != nullptr);
        };
        const int some = rounded(a.key_depth < 64 ? a.key_depth : 64);
        a.output_depth = fitting(op, stream, a.value_depth, [&](int depth) { return bytes(some, depth); });
        a.side_depth = fitting(op, stream, a.key_depth, [&](int depth) { return bytes(depth, a.output_depth); });
        const std::size_t shared = bytes(a.side_depth, a.output_depth);
        check_shared(op, stream, shared, out.dtype);
        const std::int64_t blocks = a.heads * a.parts * a.shares;
        launch(op, stream, {blocks_for(blocks, 1), threads, shared}, gradient_kernel<Mode, columns, rows_are_queries>,
               a);
    });
}

template <class Mode>
void run_delta(Stream stream, const Call& call, typename Mode::Sum* delta) {
    using S = typename Mode::Stored;
    using A = typename Mode::Sum;
    const AttentionSizes& s = call.sizes;
    const Delta<S, A> a = {heads_of<const S>(call.grad_out),
                           heads_of<const S>(call.out),
                           delta,
                           s.images,
                           s.heads,
                           s.queries,
                           s.value_depth};
    const std::int64_t rows = s.images * s.heads * s.queries, per_block = a.grad_out.column == 1 ? warps : threads;
    launch(op, stream, {blocks_for(rows, per_block), threads}, delta_kernel<S, A>, a);
    if (call.gate == nullptr) return;
    launch(op, stream, {1, threads, warps * sizeof(double)}, gamma_kernel<A>, delta, rows,
           call.gate->grad_gamma.as<A>());
}

template <class Mode>
void run_all(Stream stream, const Call& call) {
    using S = typename Mode::Stored;
    using A = typename Mode::Sum;
    const auto q = heads_of<const S>(call.q), k = heads_of<const S>(call.k), v = heads_of<const S>(call.v);
    const auto g = heads_of<const S>(call.grad_out);
    Workspace room(Check(op), call.workspace, attention_backward_workspace(call.q, call.bias));
    const Scratch<A> scratch(room, call.q, call.bias);
    run_delta<Mode>(stream, call, scratch.delta);

    Gradient<Mode> values = gradient<Mode>(call, scratch.delta);
    values.row_side = k, values.column_side = q, values.source = g;
    values.columns = call.sizes.queries;
    values.shares = call.sizes.images * ceil_div(call.sizes.keys, side);
    run<false>(stream, values, call.grad_v);

    Gradient<Mode> keys = values;
    keys.row_output = v, keys.column_output = g, keys.source = q;
    run<false>(stream, keys, call.grad_k);

    Gradient<Mode> queries = gradient<Mode>(call, scratch.delta);
    queries.row_side = q, queries.column_side = k, queries.row_output = g, queries.column_output = v,
    queries.source = k;
    queries.columns = call.sizes.keys;
    queries.shares = scratch.shares;
    queries.tables = scratch.tables;
    run<true>(stream, queries, call.grad_q);
    if (call.bias == nullptr) return;
    const Tensor& t = *call.grad_bias;
    const Tables<A> tables = {queries.tables, t.as<A>(),      t.step(0), t.step(1),
                              t.size(0),      queries.shares, t.size(1), t.size(2)};
    launch(op, stream, {blocks_for(t.size(0) * t.size(1) * t.size(2), threads), threads}, tables_kernel<A>, tables);
}

}  // namespace

std::int64_t attention_backward_workspace(const Tensor& q, const GridBias* bias) {
    Workspace counted;
    for_dtype(q.dtype, [&]<class A>() { Scratch<A>(counted, q, bias); });
    return counted.bytes();
}

void attention_backward(Stream stream, const Tensor& grad_out, const Tensor& q, const Tensor& k, const Tensor& v,
                        const Tensor& out, const Tensor& lse, const Tensor& grad_q, const Tensor& grad_k,
                        const Tensor& grad_v, const Tensor& workspace, double scale, const GridBias* bias,
                        const Tensor* grad_bias, const GateGradient* gate, bool allow_tf32) {
    const AttentionSizes s =
        check_attention_backward(grad_out, q, k, v, out, lse, grad_q, grad_k, grad_v, bias, grad_bias, gate);
    const Call call = {s, grad_out, q, k, v, out, lse, grad_q, grad_k, grad_v, workspace, scale, bias, grad_bias, gate};
    for_mode<1>(op, stream, q.dtype, allow_tf32, [&]<class Mode>() { run_all<Mode>(stream, call); });
}

}  // namespace normscan::cuda

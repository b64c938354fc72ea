// Online softmax and recomputation in the backward pass: FlashAttention (Dao et al. 2022), on cache-sized tiles.
#include "ops/kernels/attention.hpp"

#include "ops/kernels/half.hpp"
#include "ops/kernels/multiply.hpp"

namespace normscan::kernels {
namespace {

constexpr std::int64_t B = attention_queries;

template <class T>
constexpr T lowest = sizeof(T) == sizeof(double) ? T(-__DBL_MAX__) : T(-__FLT_MAX__);

template <class T>
Matrix<T> turned(Matrix<T> m) {
    return {m.data, m.column, m.row};
}

// to[c][i] = factor * from[i][c] for rows i < count; up to a whole block zero.
template <class T>
void pack_columns(Matrix<const T> from, std::int64_t count, std::int64_t depth, T factor, T* to) {
    for (std::int64_t i = 0; i < count; ++i) {
        const T* const row = from.data + i * from.row;
        for (std::int64_t c = 0; c < depth; ++c) to[c * B + i] = factor * row[c * from.column];
    }
    for (std::int64_t c = 0; c < depth; ++c) {
        for (std::int64_t i = count; i < B; ++i) to[c * B + i] = T(0);
    }
}

// to[i][c] = factor * from[i][c], rows of `width` >= depth, filled with zero.
template <class T>
void pack_rows(Matrix<const T> from, std::int64_t count, std::int64_t depth, std::int64_t width, T factor, T* to) {
    for (std::int64_t i = 0; i < count; ++i) {
        const T* const row = from.data + i * from.row;
        for (std::int64_t c = 0; c < depth; ++c) to[i * width + c] = factor * row[c * from.column];
        for (std::int64_t c = depth; c < width; ++c) to[i * width + c] = T(0);
    }
}

// Calls f(place in a tile [keys][B], place in the table, length) for each run of queries within a row of the grid, and
// each key. Query (y,x) and key (y',x') meet in the table at (h-1 + y-y', w-1 + x-x'): a run lies there side by side.
template <class F>
void for_runs(std::int64_t height, std::int64_t width, std::int64_t row, std::int64_t first_query, std::int64_t queries,
              std::int64_t first_key, std::int64_t keys, F&& f) {
    for (std::int64_t i = 0; i < queries;) {
        const std::int64_t y = (first_query + i) / width, x = (first_query + i) % width;
        const std::int64_t length = smaller(queries - i, width - x);
        std::int64_t key_y = first_key / width, key_x = first_key % width;
        for (std::int64_t j = 0; j < keys; ++j) {
            f(j * B + i, (height - 1 + y - key_y) * row + width - 1 + x - key_x, length);
            if (++key_x == width) {
                key_x = 0;
                ++key_y;
            }
        }
        i += length;
    }
}

// scores [keys][columns] = k query + bias, where query is [depth][B].
template <class T>
void score(Matrix<const T> k, const T* query, std::int64_t depth, const RelativeBias<T>& bias, std::int64_t first_query,
           std::int64_t queries, std::int64_t first_key, std::int64_t keys, T* scores) {
    const std::int64_t columns = whole_granules<T>(queries);
    if (bias.table != nullptr) {
        for (std::int64_t j = 0; j < keys; ++j) {
            for (std::int64_t i = queries; i < columns; ++i) scores[j * B + i] = T(0);
        }
        for_runs(bias.height, bias.width, bias.row, first_query, queries, first_key, keys,
                 [&](std::int64_t at, std::int64_t from, std::int64_t length) {
                     for (std::int64_t i = 0; i < length; ++i) scores[at + i] = bias.table[from + i];
                 });
    }
    multiply(keys, columns, depth, k, query, B, scores, B, bias.table != nullptr);
}

// Takes a block of scores [keys][columns] into the running maximum and sum, leaves exp(score - maximum) in its place
// and scales the results so far.
template <class T>
void online_softmax(std::int64_t keys, std::int64_t columns, T* scores, T* maximum, T* sum, T* results,
                    std::int64_t depth) {
    for (std::int64_t i = 0; i < columns; i += lanes<T>) {
        const Vec<T> before = load(maximum + i);
        Vec<T> top = before;
        for (std::int64_t j = 0; j < keys; ++j) {
            const Vec<T> s = load(scores + j * B + i);
            top = s > top ? s : top;
        }
        const Vec<T> shrink = exponential(before - top);
        Vec<T> total = load(sum + i) * shrink;
        for (std::int64_t j = 0; j < keys; ++j) {
            const Vec<T> p = exponential(load(scores + j * B + i) - top);
            store(scores + j * B + i, p);
            total += p;
        }
        store(maximum + i, top);
        store(sum + i, total);
        for (std::int64_t c = 0; c < depth; ++c) store(results + c * B + i, load(results + c * B + i) * shrink);
    }
}

// to [rows][columns] = from, along whichever of the two lies side by side in `to`.
template <class S>
void put(Matrix<const Accumulator<S>> from, std::int64_t rows, std::int64_t columns, Matrix<S> to) {
    if (to.row == 1 && to.column != 1) return put<S>({from.data, from.column, from.row}, columns, rows, turned(to));
    Accumulator<S> run[B];
    for (std::int64_t r = 0; r < rows; ++r) {
        for (std::int64_t c = 0; c < columns; c += B) {
            const std::int64_t n = smaller(B, columns - c);
            const Accumulator<S>* const at = from.data + r * from.row + c * from.column;
            for (std::int64_t i = 0; i < n; ++i) run[i] = at[i * from.column];
            put_run(run, n, to.data + r * to.row + c * to.column, to.column);
        }
    }
}

// Divides the results [dv][B] by their sums, takes them through the gate and writes them.
template <class S, class A>
void finish(const AttentionForward<S>& a, const A* maximum, const A* sum, A* result, A* space) {
    A share[B];
    for (std::int64_t i = 0; i < a.queries; ++i) {
        share[i] = A(1) / sum[i];
        a.lse[i * a.lse_step] = maximum[i] + logarithm(sum[i]);
    }
    for (std::int64_t c = 0; c < a.value_depth; ++c) {
        for (std::int64_t i = 0; i < a.queries; ++i) result[c * B + i] *= share[i];
    }
    const Matrix<const A> rows = {result, 1, B};
    if (a.gate.attended.data != nullptr) put(rows, a.queries, a.value_depth, a.gate.attended);
    if (a.gate.residual.data != nullptr) {
        const Matrix<const A> residual = widened(a.gate.residual, a.queries, a.value_depth, space);
        const A gamma = a.gate.gamma;
        for (std::int64_t c = 0; c < a.value_depth; ++c) {
            const A* const column = residual.data + c * residual.column;
            A* const to = result + c * B;
            for (std::int64_t i = 0; i < a.queries; ++i) to[i] = column[i * residual.row] + gamma * to[i];
        }
    }
    put(rows, a.queries, a.value_depth, a.out);
}

template <class S>
void forward(const AttentionForward<S>& a) {
    using A = Accumulator<S>;
    const std::int64_t columns = whole_granules<A>(a.queries);
    A* const query = a.scratch;
    A* const result = query + a.key_depth * B;
    A* const scores = result + a.value_depth * B;
    A* const maximum = scores + attention_keys * B;
    A* const sum = maximum + B;
    A* const space = sum + B;  // a tile of q, k, v or the residual, widened
    pack_columns(widened(a.q, a.queries, a.key_depth, space), a.queries, a.key_depth, a.scale, query);
    for (std::int64_t i = 0; i < a.value_depth * B; ++i) result[i] = A(0);
    for (std::int64_t i = 0; i < B; ++i) {
        maximum[i] = lowest<A>;  // finite, so that scores of -inf alone leave it where it is
        sum[i] = A(0);
    }
    for (std::int64_t j = 0; j < a.keys; j += attention_keys) {
        const std::int64_t n = smaller(attention_keys, a.keys - j);
        const Matrix<const S> keys = {a.k.data + j * a.k.row, a.k.row, a.k.column};
        const Matrix<const S> values = {a.v.data + j * a.v.row, a.v.row, a.v.column};
        score(widened(keys, n, a.key_depth, space), query, a.key_depth, a.bias, a.first_query, a.queries, j, n, scores);
        online_softmax(n, columns, scores, maximum, sum, result, a.value_depth);
        multiply(a.value_depth, columns, n, turned(widened(values, n, a.value_depth, space)), scores, B, result, B,
                 true);
    }
    finish(a, maximum, sum, result, space);
}

// Scratch of the backward pass: one block of queries both ways round, and the gradients of a chunk of keys and values.
template <class S>
struct Tiles {
    using A = Accumulator<S>;
    std::int64_t key_width, value_width;         // depths in whole granules
    A *q_columns, *q_rows, *g_columns, *g_rows;  // g is grad_out
    A *p, *ds;                                   // [keys][queries]
    A *lse, *delta;                              // per query
    A *grad_k, *grad_v;                          // [keys][width]
    A* space;                                    // rows of queries, widened
    Matrix<const A> k, v;                        // of the chunk

    explicit Tiles(const AttentionBackward<S>& a)
        : key_width(whole_granules<A>(a.key_depth)), value_width(whole_granules<A>(a.value_depth)) {
        q_columns = a.scratch;
        q_rows = q_columns + key_width * B;
        g_columns = q_rows + key_width * B;
        g_rows = g_columns + value_width * B;
        p = g_rows + value_width * B;
        ds = p + attention_keys * B;
        lse = ds + attention_keys * B;
        delta = lse + B;
        grad_k = delta + B;
        grad_v = grad_k + a.keys * key_width;
        space = grad_v + a.keys * value_width;
        A* const chunk = space + B * larger(key_width, value_width);
        k = widened(a.k, a.keys, a.key_depth, chunk);
        v = widened(a.v, a.keys, a.value_depth, chunk + a.keys * key_width);
    }
};

// Packs queries i.. and sets delta = sum_c grad_out out, the part of the softmax gradient that all keys share.
template <class S>
void load_queries(const AttentionBackward<S>& a, std::int64_t i, std::int64_t n, const Tiles<S>& t) {
    using A = Accumulator<S>;
    const auto rows = [&](const Matrix<const S>& of, std::int64_t depth) {
        return widened(Matrix<const S>{of.data + i * of.row, of.row, of.column}, n, depth, t.space);
    };
    const Matrix<const A> q = rows(a.q, a.key_depth);
    pack_columns(q, n, a.key_depth, a.scale, t.q_columns);
    pack_rows(q, n, a.key_depth, t.key_width, a.scale, t.q_rows);
    const Matrix<const A> g = rows(a.grad_out, a.value_depth);
    pack_columns(g, n, a.value_depth, a.gamma, t.g_columns);
    pack_rows(g, n, a.value_depth, t.value_width, a.gamma, t.g_rows);
    const Matrix<const A> out = rows(a.out, a.value_depth);
    for (std::int64_t r = 0; r < B; ++r) t.lse[r] = t.delta[r] = A(0);
    for (std::int64_t r = 0; r < n; ++r) {
        const A* const from = out.data + r * out.row;
        const A* const g_row = t.g_rows + r * t.value_width;
        t.delta[r] = sum_in_lanes<A>(a.value_depth, [&](std::int64_t c) { return g_row[c] * from[c * out.column]; });
        t.lse[r] = a.lse[(i + r) * a.lse_step];
    }
}

// From scores in p and grad_out v^T in ds: the probabilities and the gradient of the scaled scores.
template <class S>
void softmax_gradient(std::int64_t keys, std::int64_t columns, const Tiles<S>& t) {
    using T = Accumulator<S>;
    for (std::int64_t j = 0; j < keys; ++j) {
        for (std::int64_t i = 0; i < columns; i += lanes<T>) {
            const Vec<T> p = exponential(load(t.p + j * B + i) - load(t.lse + i));
            store(t.p + j * B + i, p);
            store(t.ds + j * B + i, p * (load(t.ds + j * B + i) - load(t.delta + i)));
        }
    }
}

// One tile of the backward pass: keys j.. of the chunk against the queries that are loaded.
template <class S>
void backward_tile(const AttentionBackward<S>& a, const Tiles<S>& t, std::int64_t i, std::int64_t queries,
                   std::int64_t j) {
    using A = Accumulator<S>;
    const std::int64_t keys = smaller(attention_keys, a.keys - j), columns = whole_granules<A>(queries);
    const Matrix<const A> k = {t.k.data + j * t.k.row, t.k.row, t.k.column};
    const Matrix<const A> v = {t.v.data + j * t.v.row, t.v.row, t.v.column};
    score(k, t.q_columns, a.key_depth, a.bias, i, queries, a.first_key + j, keys, t.p);
    multiply(keys, columns, a.value_depth, v, t.g_columns, B, t.ds, B, false);
    softmax_gradient(keys, columns, t);
    const Matrix<const A> p = {t.p, B, 1}, ds = {t.ds, B, 1};
    multiply(keys, t.value_width, queries, p, t.g_rows, t.value_width, t.grad_v + j * t.value_width, t.value_width,
             true);
    multiply(keys, t.key_width, queries, ds, t.q_rows, t.key_width, t.grad_k + j * t.key_width, t.key_width, true);
    multiply(a.key_depth, columns, keys, turned(k), t.ds, B, a.grad_q + i * a.key_depth, B, true);
    if (a.bias.table == nullptr) return;
    for_runs(a.bias.height, a.bias.width, 2 * a.bias.width - 1, i, queries, a.first_key + j, keys,
             [&](std::int64_t at, std::int64_t to, std::int64_t length) {
                 for (std::int64_t x = 0; x < length; ++x) a.grad_bias[to + x] += t.ds[at + x];
             });
}

template <class S>
void backward(const AttentionBackward<S>& a) {
    using A = Accumulator<S>;
    const Tiles<S> t(a);
    for (std::int64_t x = 0; x < a.keys * (t.key_width + t.value_width); ++x) t.grad_k[x] = A(0);
    for (std::int64_t i = 0; i < a.queries; i += B) {
        const std::int64_t queries = smaller(B, a.queries - i);
        load_queries(a, i, queries, t);
        for (std::int64_t j = 0; j < a.keys; j += attention_keys) backward_tile(a, t, i, queries, j);
    }
    put<S>({t.grad_k, t.key_width, 1}, a.keys, a.key_depth, a.grad_k);
    put<S>({t.grad_v, t.value_width, 1}, a.keys, a.value_depth, a.grad_v);
}

template <class S>
double dot(Matrix<const S> a, Matrix<const S> b, std::int64_t rows, std::int64_t columns, Accumulator<S>* scratch) {
    double total = 0.0;
    for (std::int64_t r = 0; r < rows; ++r) {
        const auto x = widened(Matrix<const S>{a.data + r * a.row, a.row, a.column}, 1, columns, scratch);
        const auto y = widened(Matrix<const S>{b.data + r * b.row, b.row, b.column}, 1, columns, scratch + columns);
        total += static_cast<double>(sum_in_lanes<Accumulator<S>>(
            columns, [&](std::int64_t c) { return x.data[c * x.column] * y.data[c * y.column]; }));
    }
    return total;
}

template <class S>
constexpr AttentionKernels<S> all = {forward<S>, backward<S>, put<S>, dot<S>};

}  // namespace

const AttentionTable NORMSCAN_TABLE(attention) = {all<float>, all<double>, all<Float16>, all<BFloat16>};

}  // namespace normscan::kernels

// Online softmax and recomputation in the backward pass: FlashAttention (Dao et al. 2022), on cache-sized tiles.
#include "ops/kernels/attention.hpp"

#include "ops/kernels/multiply.hpp"

namespace normscan::kernels {
namespace {

constexpr std::int64_t B = attention_queries;

template <class T>
constexpr T lowest = sizeof(T) == sizeof(double) ? T(-__DBL_MAX__) : T(-__FLT_MAX__);

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

template <class T>
void forward(const AttentionForward<T>& a) {
    const std::int64_t columns = whole_granules<T>(a.queries);
    T* const query = a.scratch;
    T* const result = query + a.key_depth * B;
    T* const scores = result + a.value_depth * B;
    T* const maximum = scores + attention_keys * B;
    T* const sum = maximum + B;
    pack_columns(a.q, a.queries, a.key_depth, a.scale, query);
    for (std::int64_t i = 0; i < a.value_depth * B; ++i) result[i] = T(0);
    for (std::int64_t i = 0; i < B; ++i) {
        maximum[i] = lowest<T>;  // finite, so that scores of -inf alone leave it where it is
        sum[i] = T(0);
    }
    for (std::int64_t j = 0; j < a.keys; j += attention_keys) {
        const std::int64_t n = smaller(attention_keys, a.keys - j);
        const Matrix<const T> keys = {a.k.data + j * a.k.row, a.k.row, a.k.column};
        const Matrix<const T> values = {a.v.data + j * a.v.row, a.v.column, a.v.row};  // transposed
        score(keys, query, a.key_depth, a.bias, a.first_query, a.queries, j, n, scores);
        online_softmax(n, columns, scores, maximum, sum, result, a.value_depth);
        multiply(a.value_depth, columns, n, values, scores, B, result, B, true);
    }
    for (std::int64_t i = 0; i < a.queries; ++i) {
        const T share = T(1) / sum[i];
        T* const row = a.out.data + i * a.out.row;
        for (std::int64_t c = 0; c < a.value_depth; ++c) row[c * a.out.column] = result[c * B + i] * share;
        a.lse[i * a.lse_step] = maximum[i] + logarithm(sum[i]);
    }
}

// Scratch of the backward pass: one block of queries both ways round, and the gradients of a chunk of keys and values.
template <class T>
struct Tiles {
    std::int64_t key_width, value_width;         // depths in whole granules
    T *q_columns, *q_rows, *g_columns, *g_rows;  // g is grad_out
    T *p, *ds;                                   // [keys][queries]
    T *lse, *delta;                              // per query
    T *grad_k, *grad_v;                          // [keys][width]

    explicit Tiles(const AttentionBackward<T>& a)
        : key_width(whole_granules<T>(a.key_depth)), value_width(whole_granules<T>(a.value_depth)) {
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
    }
};

// Packs queries i.. and sets delta = sum_c grad_out out, the part of the softmax gradient that all keys share.
template <class T>
void load_queries(const AttentionBackward<T>& a, std::int64_t i, std::int64_t n, const Tiles<T>& t) {
    const Matrix<const T> q = {a.q.data + i * a.q.row, a.q.row, a.q.column};
    const Matrix<const T> g = {a.grad_out.data + i * a.grad_out.row, a.grad_out.row, a.grad_out.column};
    pack_columns(q, n, a.key_depth, a.scale, t.q_columns);
    pack_rows(q, n, a.key_depth, t.key_width, a.scale, t.q_rows);
    pack_columns(g, n, a.value_depth, T(1), t.g_columns);
    pack_rows(g, n, a.value_depth, t.value_width, T(1), t.g_rows);
    for (std::int64_t r = 0; r < B; ++r) t.lse[r] = t.delta[r] = T(0);
    for (std::int64_t r = 0; r < n; ++r) {
        const T* const out = a.out.data + (i + r) * a.out.row;
        const T* const g_row = t.g_rows + r * t.value_width;
        t.delta[r] = sum_in_lanes<T>(a.value_depth, [&](std::int64_t c) { return g_row[c] * out[c * a.out.column]; });
        t.lse[r] = a.lse[(i + r) * a.lse_step];
    }
}

// From scores in p and grad_out v^T in ds: the probabilities and the gradient of the scaled scores.
template <class T>
void softmax_gradient(std::int64_t keys, std::int64_t columns, const Tiles<T>& t) {
    for (std::int64_t j = 0; j < keys; ++j) {
        for (std::int64_t i = 0; i < columns; i += lanes<T>) {
            const Vec<T> p = exponential(load(t.p + j * B + i) - load(t.lse + i));
            store(t.p + j * B + i, p);
            store(t.ds + j * B + i, p * (load(t.ds + j * B + i) - load(t.delta + i)));
        }
    }
}

template <class T>
void unpack_rows(const T* from, std::int64_t width, std::int64_t count, std::int64_t depth, Matrix<T> to) {
    for (std::int64_t j = 0; j < count; ++j) {
        for (std::int64_t c = 0; c < depth; ++c) to.data[j * to.row + c * to.column] = from[j * width + c];
    }
}

// One tile of the backward pass: keys j.. of the chunk against the queries that are loaded.
template <class T>
void backward_tile(const AttentionBackward<T>& a, const Tiles<T>& t, std::int64_t i, std::int64_t queries,
                   std::int64_t j) {
    const std::int64_t keys = smaller(attention_keys, a.keys - j), columns = whole_granules<T>(queries);
    const Matrix<const T> k = {a.k.data + j * a.k.row, a.k.row, a.k.column}, k_turned = {k.data, k.column, k.row};
    const Matrix<const T> v = {a.v.data + j * a.v.row, a.v.row, a.v.column};
    score(k, t.q_columns, a.key_depth, a.bias, i, queries, a.first_key + j, keys, t.p);
    multiply(keys, columns, a.value_depth, v, t.g_columns, B, t.ds, B, false);
    softmax_gradient(keys, columns, t);
    const Matrix<const T> p = {t.p, B, 1}, ds = {t.ds, B, 1};
    multiply(keys, t.value_width, queries, p, t.g_rows, t.value_width, t.grad_v + j * t.value_width, t.value_width,
             true);
    multiply(keys, t.key_width, queries, ds, t.q_rows, t.key_width, t.grad_k + j * t.key_width, t.key_width, true);
    multiply(a.key_depth, columns, keys, k_turned, t.ds, B, a.grad_q + i * a.key_depth, B, true);
    if (a.bias.table == nullptr) return;
    for_runs(a.bias.height, a.bias.width, 2 * a.bias.width - 1, i, queries, a.first_key + j, keys,
             [&](std::int64_t at, std::int64_t to, std::int64_t length) {
                 for (std::int64_t x = 0; x < length; ++x) a.grad_bias[to + x] += t.ds[at + x];
             });
}

template <class T>
void backward(const AttentionBackward<T>& a) {
    const Tiles<T> t(a);
    for (std::int64_t x = 0; x < a.keys * (t.key_width + t.value_width); ++x) t.grad_k[x] = T(0);
    for (std::int64_t i = 0; i < a.queries; i += B) {
        const std::int64_t queries = smaller(B, a.queries - i);
        load_queries(a, i, queries, t);
        for (std::int64_t j = 0; j < a.keys; j += attention_keys) backward_tile(a, t, i, queries, j);
    }
    unpack_rows(t.grad_k, t.key_width, a.keys, a.key_depth, a.grad_k);
    unpack_rows(t.grad_v, t.value_width, a.keys, a.value_depth, a.grad_v);
}

}  // namespace

const AttentionTable NORMSCAN_TABLE(attention) = {{forward<float>, backward<float>},
                                                  {forward<double>, backward<double>}};

}  // namespace normscan::kernels

// Attention: checks and threading. Blocks are (image, head, 64 queries) forwards and (image, head, part of the keys)
// backwards.
#include "ops/kernels/attention.hpp"

#include <algorithm>

#include "normscan/ops.hpp"
#include "ops/buffer.hpp"
#include "ops/check.hpp"
#include "ops/dispatch.hpp"
#include "ops/parallel.hpp"

namespace normscan {
namespace {

struct Sizes {
    std::int64_t images, heads, queries, keys, key_depth, value_depth;
};

Sizes check(const Check& check, const Tensor& q, const Tensor& k, const Tensor& v, const Tensor& out,
            const Tensor& lse) {
    check.rank({"q", q}, {4}, "[N,H,L,dk]");
    check.rank({"k", k}, {4}, "[N,H,M,dk]");
    check.rank({"v", v}, {4}, "[N,H,M,dv]");
    check.floating({{"q", q}, {"k", k}, {"v", v}, {"out", out}, {"lse", lse}});
    const Sizes s = {q.size(0), q.size(1), q.size(2), k.size(2), q.size(3), v.size(3)};
    check.shape({"k", k}, {s.images, s.heads, s.keys, s.key_depth}, "[N,H,M,dk] as q says");
    check.shape({"v", v}, {s.images, s.heads, s.keys, s.value_depth}, "[N,H,M,dv] as q and k say");
    check.shape({"out", out}, {s.images, s.heads, s.queries, s.value_depth}, "[N,H,L,dv]");
    check.shape({"lse", lse}, {s.images, s.heads, s.queries}, "[N,H,L]");
    if (s.keys == 0) check.fail("k has no positions (M = 0), expected at least one");
    return s;
}

void check_bias(const Check& check, const Sizes& s, const Tensor& q, const GridBias& bias) {
    check.floating({{"q", q}, {"bias", bias.table}});
    const auto in = [](std::int64_t side, std::int64_t n) { return side >= 1 && side <= n; };
    if (s.keys != s.queries || !in(bias.height, s.queries) || !in(bias.width, s.queries) ||
        bias.height * bias.width != s.queries) {
        check.fail("grid is ", bias.height, " x ", bias.width, ", q has ", s.queries, " positions and k ", s.keys,
                   "; expected as many positions as the grid");
    }
    check.shape({"bias", bias.table}, {s.heads, 2 * bias.height - 1, 2 * bias.width - 1}, "[H,2h-1,2w-1]");
}

template <class T>
kernels::RelativeBias<T> head(const GridBias* bias, std::int64_t h) {
    if (bias == nullptr) return {};
    return {bias->table.as<const T>() + h * bias->table.step(0), bias->table.step(1), bias->height, bias->width};
}

// The head of t that starts at position `first`.
template <class T>
kernels::Matrix<T> head(const Tensor& t, std::int64_t n, std::int64_t h, std::int64_t first = 0) {
    return {t.as<T>() + n * t.step(0) + h * t.step(1) + first * t.step(2), t.step(2), t.step(3)};
}

template <class T>
void run_forward(const Sizes& s, const Tensor& q, const Tensor& k, const Tensor& v, const Tensor& out,
                 const Tensor& lse, double scale, const GridBias* bias) {
    constexpr std::int64_t block = kernels::attention_queries;
    const auto kernel = kernels_of<T>(NORMSCAN_CHOOSE(attention)).forward;
    const std::int64_t blocks = (s.queries + block - 1) / block;
    parallel_for(s.images * s.heads * blocks, [&](std::int64_t task) {
        const std::int64_t n = task / blocks / s.heads, h = task / blocks % s.heads, first = task % blocks * block;
        const Buffer<T> scratch((s.key_depth + s.value_depth + kernels::attention_keys + 2) * block);
        kernel({head<const T>(q, n, h, first), head<const T>(k, n, h), head<const T>(v, n, h), head<T>(bias, h),
                head<T>(out, n, h, first), lse.as<T>() + n * lse.step(0) + h * lse.step(1) + first * lse.step(2),
                lse.step(2), first, std::min(block, s.queries - first), s.keys, s.key_depth, s.value_depth,
                static_cast<T>(scale), scratch.get()});
    });
}

constexpr std::int64_t rounded_up(std::int64_t n, std::int64_t to) {
    return (n + to - 1) / to * to;
}

template <class T>
std::int64_t backward_scratch(const Sizes& s) {
    constexpr std::int64_t block = kernels::attention_queries, granule = 16;
    const std::int64_t width = rounded_up(s.key_depth, granule) + rounded_up(s.value_depth, granule);
    return (2 * width + 2 * kernels::attention_keys + 2) * block + std::min(s.keys, kernels::attention_chunk) * width;
}

// Everything that the backward pass reads and writes; bias and grad_bias may be nullptr.
struct Backward {
    const Tensor &grad_out, &q, &k, &v, &out, &lse, &grad_q, &grad_k, &grad_v;
    double scale;
    const GridBias* bias;
    const Tensor* grad_bias;
};

// The keys of a head are cut into parts, by their number alone: results must not depend on threads or batch. A part
// owns the gradients of its keys; what it adds to those of the queries and of the bias goes to memory of its own
// (queries in blocks [dk][64]), and the parts are added up in order.
struct Parts {
    static constexpr std::int64_t most = 8;

    explicit Parts(const Sizes& s, const GridBias* bias)
        : keys(rounded_up((s.keys + most - 1) / most, kernels::attention_chunk)),
          count((s.keys + keys - 1) / keys),
          query_numbers(rounded_up(s.queries, kernels::attention_queries) * s.key_depth),
          bias_numbers(bias == nullptr ? 0 : (2 * bias->height - 1) * (2 * bias->width - 1)) {}

    std::int64_t keys, count;  // keys of a part, parts of a head
    std::int64_t query_numbers, bias_numbers;
    std::int64_t numbers() const { return query_numbers + bias_numbers; }
};

// Part `part` of head h of image n; `sums` is its own memory.
template <class T>
void run_part(const Sizes& s, const Backward& b, const Parts& parts, std::int64_t n, std::int64_t h, std::int64_t part,
              T* sums) {
    const auto kernel = kernels_of<T>(NORMSCAN_CHOOSE(attention)).backward;
    const Buffer<T> scratch(backward_scratch<T>(s));
    std::fill_n(sums, parts.numbers(), T(0));
    const std::int64_t end = std::min(s.keys, (part + 1) * parts.keys);
    for (std::int64_t first = part * parts.keys; first < end; first += kernels::attention_chunk) {
        kernel({head<const T>(b.grad_out, n, h), head<const T>(b.q, n, h), head<const T>(b.k, n, h, first),
                head<const T>(b.v, n, h, first), head<const T>(b.out, n, h), head<T>(b.bias, h),
                b.lse.as<T>() + n * b.lse.step(0) + h * b.lse.step(1), b.lse.step(2), sums,
                head<T>(b.grad_k, n, h, first), head<T>(b.grad_v, n, h, first), sums + parts.query_numbers, s.queries,
                first, std::min(kernels::attention_chunk, end - first), s.key_depth, s.value_depth,
                static_cast<T>(b.scale), scratch.get()});
    }
}

// Writes grad_q for the queries of one block of head h of image n.
template <class T>
void write_queries(const Sizes& s, const Backward& b, const Parts& parts, std::int64_t n, std::int64_t h,
                   std::int64_t first, const T* sums) {
    constexpr std::int64_t block = kernels::attention_queries;
    const kernels::Matrix<T> to = head<T>(b.grad_q, n, h, first);
    for (std::int64_t i = 0; i < std::min(block, s.queries - first); ++i) {
        for (std::int64_t c = 0; c < s.key_depth; ++c) {
            const T* const from = sums + first * s.key_depth + c * block + i;
            T total = T(0);
            for (std::int64_t part = 0; part < parts.count; ++part) total += from[part * parts.numbers()];
            to.data[i * to.row + c * to.column] = static_cast<T>(b.scale) * total;
        }
    }
}

// Adds the parts of one head to the gradient of its table; without sums, sets that to zero.
template <class T>
void add_bias(const Backward& b, const Parts& parts, std::int64_t h, const T* sums) {
    const std::int64_t width = 2 * b.bias->width - 1;
    const Tensor& t = *b.grad_bias;
    for (std::int64_t x = 0; x < parts.bias_numbers; ++x) {
        T& total = t.as<T>()[h * t.step(0) + x / width * t.step(1) + x % width * t.step(2)];
        if (sums == nullptr) {
            total = T(0);
            continue;
        }
        for (std::int64_t part = 0; part < parts.count; ++part) {
            total += sums[part * parts.numbers() + parts.query_numbers + x];
        }
    }
}

// As many heads at a time as keep the threads busy: so the memory of parts grows with the threads, not with the batch.
template <class T>
void run_backward(const Sizes& s, const Backward& b) {
    constexpr std::int64_t block = kernels::attention_queries;
    const Parts parts(s, b.bias);
    const std::int64_t heads = s.images * s.heads, blocks = (s.queries + block - 1) / block;
    const std::int64_t together = std::min(heads, (4 * threads() + parts.count - 1) / parts.count);
    const Buffer<T> sums(together * parts.count * parts.numbers());
    const auto sums_of = [&](std::int64_t i) { return sums.get() + i * parts.count * parts.numbers(); };
    for (std::int64_t h = 0; b.bias != nullptr && h < s.heads; ++h) add_bias<T>(b, parts, h, nullptr);
    for (std::int64_t first = 0; first < heads; first += together) {
        const std::int64_t count = std::min(together, heads - first);
        parallel_for(count * parts.count, [&](std::int64_t task) {
            const std::int64_t i = task / parts.count, part = task % parts.count;
            run_part(s, b, parts, (first + i) / s.heads, (first + i) % s.heads, part,
                     sums_of(i) + part * parts.numbers());
        });
        parallel_for(count * blocks, [&](std::int64_t task) {
            const std::int64_t i = task / blocks;
            write_queries(s, b, parts, (first + i) / s.heads, (first + i) % s.heads, task % blocks * block, sums_of(i));
        });
        for (std::int64_t i = 0; b.bias != nullptr && i < count; ++i) {
            add_bias(b, parts, (first + i) % s.heads, sums_of(i));
        }
    }
}

}  // namespace

void attention(const Tensor& q, const Tensor& k, const Tensor& v, const Tensor& out, const Tensor& lse, double scale,
               const GridBias* bias) {
    const Check checks("attention");
    const Sizes s = check(checks, q, k, v, out, lse);
    if (bias != nullptr) check_bias(checks, s, q, *bias);
    checks.output({"out", out});
    checks.output({"lse", lse});
    for_dtype(q.dtype, [&]<class T>() { run_forward<T>(s, q, k, v, out, lse, scale, bias); });
}

void attention_backward(const Tensor& grad_out, const Tensor& q, const Tensor& k, const Tensor& v, const Tensor& out,
                        const Tensor& lse, const Tensor& grad_q, const Tensor& grad_k, const Tensor& grad_v,
                        double scale, const GridBias* bias, const Tensor* grad_bias) {
    const Check checks("attention_backward");
    const Sizes s = check(checks, q, k, v, out, lse);
    checks.floating({{"q", q}, {"grad_out", grad_out}, {"grad_q", grad_q}, {"grad_k", grad_k}, {"grad_v", grad_v}});
    checks.same_shape({"grad_out", grad_out}, {"out", out});
    checks.same_shape({"grad_q", grad_q}, {"q", q});
    checks.same_shape({"grad_k", grad_k}, {"k", k});
    checks.same_shape({"grad_v", grad_v}, {"v", v});
    for (const Named& t : {Named{"grad_q", grad_q}, Named{"grad_k", grad_k}, Named{"grad_v", grad_v}}) checks.output(t);
    if ((bias == nullptr) != (grad_bias == nullptr)) {
        checks.fail(bias == nullptr ? "grad_bias is given without bias" : "bias is given without grad_bias",
                    "; expected both or neither");
    }
    if (bias != nullptr) {
        check_bias(checks, s, q, *bias);
        checks.floating({{"q", q}, {"grad_bias", *grad_bias}});
        checks.same_shape({"grad_bias", *grad_bias}, {"bias", bias->table});
        checks.output({"grad_bias", *grad_bias});
    }
    const Backward all{grad_out, q, k, v, out, lse, grad_q, grad_k, grad_v, scale, bias, grad_bias};
    for_dtype(q.dtype, [&]<class T>() { run_backward<T>(s, all); });
}

}  // namespace normscan

// Attention: checks and threading. Blocks are (image, head, 64 queries) forwards and (image, head) backwards.
#include "ops/kernels/attention.hpp"
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

// The head of t that starts at position `first`.
template <class T>
kernels::Matrix<T> head(const Tensor& t, std::int64_t n, std::int64_t h, std::int64_t first = 0) {
    return {t.as<T>() + n * t.step(0) + h * t.step(1) + first * t.step(2), t.step(2), t.step(3)};
}

template <class T>
void run_forward(const Sizes& s, const Tensor& q, const Tensor& k, const Tensor& v, const Tensor& out,
                 const Tensor& lse, double scale) {
    constexpr std::int64_t block = kernels::attention_queries;
    const auto kernel = kernels_of<T>(NORMSCAN_CHOOSE(attention)).forward;
    const std::int64_t blocks = (s.queries + block - 1) / block;
    parallel_for(s.images * s.heads * blocks, [&](std::int64_t task) {
        const std::int64_t n = task / blocks / s.heads, h = task / blocks % s.heads, first = task % blocks * block;
        const Buffer<T> scratch((s.key_depth + s.value_depth + kernels::attention_keys + 3) * block);
        kernel({head<const T>(q, n, h, first), head<const T>(k, n, h), head<const T>(v, n, h),
                head<T>(out, n, h, first), lse.as<T>() + n * lse.step(0) + h * lse.step(1) + first * lse.step(2),
                lse.step(2), std::min(block, s.queries - first), s.keys, s.key_depth, s.value_depth,
                static_cast<T>(scale), scratch.get()});
    });
}

template <class T>
std::int64_t backward_scratch(const Sizes& s) {
    constexpr std::int64_t block = kernels::attention_queries, granule = 16;
    const std::int64_t key_width = (s.key_depth + granule - 1) / granule * granule;
    const std::int64_t value_width = (s.value_depth + granule - 1) / granule * granule;
    return (4 * (key_width + value_width) + 2 * kernels::attention_keys + 2) * block +
           s.keys * (key_width + value_width);
}

}  // namespace

void attention(const Tensor& q, const Tensor& k, const Tensor& v, const Tensor& out, const Tensor& lse, double scale) {
    const Check checks("attention");
    const Sizes s = check(checks, q, k, v, out, lse);
    checks.output({"out", out});
    checks.output({"lse", lse});
    for_dtype(q.dtype, [&]<class T>() { run_forward<T>(s, q, k, v, out, lse, scale); });
}

void attention_backward(const Tensor& grad_out, const Tensor& q, const Tensor& k, const Tensor& v, const Tensor& out,
                        const Tensor& lse, const Tensor& grad_q, const Tensor& grad_k, const Tensor& grad_v,
                        double scale) {
    const Check checks("attention_backward");
    const Sizes s = check(checks, q, k, v, out, lse);
    checks.floating({{"q", q}, {"grad_out", grad_out}, {"grad_q", grad_q}, {"grad_k", grad_k}, {"grad_v", grad_v}});
    checks.same_shape({"grad_out", grad_out}, {"out", out});
    checks.same_shape({"grad_q", grad_q}, {"q", q});
    checks.same_shape({"grad_k", grad_k}, {"k", k});
    checks.same_shape({"grad_v", grad_v}, {"v", v});
    for (const Named& t : {Named{"grad_q", grad_q}, Named{"grad_k", grad_k}, Named{"grad_v", grad_v}}) checks.output(t);
    for_dtype(q.dtype, [&]<class T>() {
        const auto kernel = kernels_of<T>(NORMSCAN_CHOOSE(attention)).backward;
        parallel_for(s.images * s.heads, [&](std::int64_t task) {
            const std::int64_t n = task / s.heads, h = task % s.heads;
            const Buffer<T> scratch(backward_scratch<T>(s));
            kernel({head<const T>(grad_out, n, h), head<const T>(q, n, h), head<const T>(k, n, h),
                    head<const T>(v, n, h), head<const T>(out, n, h), lse.as<T>() + n * lse.step(0) + h * lse.step(1),
                    lse.step(2), head<T>(grad_q, n, h), head<T>(grad_k, n, h), head<T>(grad_v, n, h), s.queries, s.keys,
                    s.key_depth, s.value_depth, static_cast<T>(scale), scratch.get()});
        });
    });
}

}  // namespace normscan

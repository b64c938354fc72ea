// Attention: checks and threading. Blocks are (image, head, 64 queries) forwards and (image, head, part of the keys)
// backwards.
#include "ops/attention.hpp"

#include <algorithm>
#include <vector>

#include "ops/buffer.hpp"
#include "ops/check.hpp"
#include "ops/dispatch.hpp"
#include "ops/kernels/attention.hpp"
#include "ops/parallel.hpp"

namespace normscan {
namespace {

using Sizes = AttentionSizes;

constexpr auto storable = {DType::float32, DType::float64, DType::float16, DType::bfloat16};

// The dtype of sums, of the bias and of gamma.
DType accumulator(const Tensor& q) {
    return q.dtype == DType::float64 ? DType::float64 : DType::float32;
}

template <class F>
void for_stored(DType dtype, F&& f) {
    if (dtype == DType::float16) return f.template operator()<Float16>();
    if (dtype == DType::bfloat16) return f.template operator()<BFloat16>();
    for_dtype(dtype, f);
}

template <class S>
const kernels::AttentionKernels<S>& attention_kernels() {
    const kernels::AttentionTable& table = NORMSCAN_CHOOSE(attention);
    if constexpr (dtype_of<S> == DType::float16) return table.f16;
    if constexpr (dtype_of<S> == DType::bfloat16) return table.bf16;
    if constexpr (sizeof(S) >= sizeof(float)) return kernels_of<S>(table);
}

// Numbers of float32 that a kernel needs to widen `n` numbers of S.
template <class S>
constexpr std::int64_t widening(std::int64_t n) {
    return sizeof(S) < sizeof(float) ? n : 0;
}

Sizes check(const Check& check, const Tensor& q, const Tensor& k, const Tensor& v, const Tensor& out,
            const Tensor& lse) {
    check.rank({"q", q}, {4}, "[N,H,L,dk]");
    check.rank({"k", k}, {4}, "[N,H,M,dk]");
    check.rank({"v", v}, {4}, "[N,H,M,dv]");
    check.floating({{"q", q}, {"k", k}, {"v", v}, {"out", out}}, storable);
    check.dtype({"lse", lse}, {accumulator(q)});
    check.strides({"lse", lse});
    const Sizes s = {q.size(0), q.size(1), q.size(2), k.size(2), q.size(3), v.size(3)};
    check.shape({"k", k}, {s.images, s.heads, s.keys, s.key_depth}, "[N,H,M,dk] as q says");
    check.shape({"v", v}, {s.images, s.heads, s.keys, s.value_depth}, "[N,H,M,dv] as q and k say");
    check.shape({"out", out}, {s.images, s.heads, s.queries, s.value_depth}, "[N,H,L,dv]");
    check.shape({"lse", lse}, {s.images, s.heads, s.queries}, "[N,H,L]");
    if (s.keys == 0) check.fail("k has no positions (M = 0), expected at least one");
    return s;
}

void check_bias(const Check& check, const Sizes& s, const Tensor& q, const GridBias& bias) {
    check.dtype({"bias", bias.table}, {accumulator(q)});
    check.strides({"bias", bias.table});
    const auto in = [](std::int64_t side, std::int64_t n) { return side >= 1 && side <= n; };
    if (s.keys != s.queries || !in(bias.height, s.queries) || !in(bias.width, s.queries) ||
        bias.height * bias.width != s.queries) {
        check.fail("grid is ", bias.height, " x ", bias.width, ", q has ", s.queries, " positions and k ", s.keys,
                   "; expected as many positions as the grid");
    }
    check.shape({"bias", bias.table}, {s.heads, 2 * bias.height - 1, 2 * bias.width - 1}, "[H,2h-1,2w-1]");
}

void check_gamma(const Check& check, const Tensor& q, Named gamma) {
    check.dtype(gamma, {accumulator(q)});
    check.shape(gamma, {1}, "[1]");
}

void check_gate(const Check& check, const Tensor& q, const Tensor& out, const Gate& gate) {
    check.floating({{"q", q}, {"residual", gate.residual}}, storable);
    check.same_shape({"residual", gate.residual}, {"out", out});
    check_gamma(check, q, {"gamma", gate.gamma});
    if (gate.attended == nullptr) return;
    check.same_dtype({"attended", *gate.attended}, {"q", q});
    check.same_shape({"attended", *gate.attended}, {"out", out});
    check.output({"attended", *gate.attended});
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

template <class S>
kernels::AttentionGate<S> head(const Gate* gate, std::int64_t n, std::int64_t h, std::int64_t first) {
    if (gate == nullptr) return {};
    return {head<const S>(gate->residual, n, h, first),
            gate->attended == nullptr ? kernels::Matrix<S>{} : head<S>(*gate->attended, n, h, first),
            *gate->gamma.as<const Accumulator<S>>()};
}

template <class S>
void run_forward(const Sizes& s, const Tensor& q, const Tensor& k, const Tensor& v, const Tensor& out,
                 const Tensor& lse, double scale, const GridBias* bias, const Gate* gate) {
    using A = Accumulator<S>;
    constexpr std::int64_t block = kernels::attention_queries;
    const auto kernel = attention_kernels<S>().forward;
    const std::int64_t blocks = (s.queries + block - 1) / block;
    const std::int64_t depths = s.key_depth + s.value_depth + widening<S>(std::max(s.key_depth, s.value_depth));
    parallel_for(s.images * s.heads * blocks, [&](std::int64_t task) {
        const std::int64_t n = task / blocks / s.heads, h = task / blocks % s.heads, first = task % blocks * block;
        const Buffer<A> scratch((depths + kernels::attention_keys + 2) * block);
        kernel({head<const S>(q, n, h, first), head<const S>(k, n, h), head<const S>(v, n, h), head<A>(bias, h),
                head<S>(gate, n, h, first), head<S>(out, n, h, first),
                lse.as<A>() + n * lse.step(0) + h * lse.step(1) + first * lse.step(2), lse.step(2), first,
                std::min(block, s.queries - first), s.keys, s.key_depth, s.value_depth, static_cast<A>(scale),
                scratch.get()});
    });
}

constexpr std::int64_t rounded_up(std::int64_t n, std::int64_t to) {
    return (n + to - 1) / to * to;
}

template <class S>
std::int64_t backward_scratch(const Sizes& s) {
    constexpr std::int64_t block = kernels::attention_queries, granule = 16;
    const std::int64_t key_width = rounded_up(s.key_depth, granule), value_width = rounded_up(s.value_depth, granule);
    const std::int64_t width = key_width + value_width, chunk = std::min(s.keys, kernels::attention_chunk) * width;
    return (2 * width + 2 * kernels::attention_keys + 2) * block + chunk +
           widening<S>(chunk + block * std::max(key_width, value_width));
}

// Everything that the backward pass reads and writes; the pointers may be nullptr.
struct Backward {
    const Tensor &grad_out, &q, &k, &v, &out, &lse, &grad_q, &grad_k, &grad_v;
    double scale;
    const GridBias* bias;
    const Tensor* grad_bias;
    const GateGradient* gate;
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
template <class S, class A>
void run_part(const Sizes& s, const Backward& b, const Parts& parts, std::int64_t n, std::int64_t h, std::int64_t part,
              A* sums) {
    const auto kernel = attention_kernels<S>().backward;
    const Buffer<A> scratch(backward_scratch<S>(s));
    const A gamma = b.gate == nullptr ? A(1) : *b.gate->gamma.as<const A>();
    std::fill_n(sums, parts.numbers(), A(0));
    const std::int64_t end = std::min(s.keys, (part + 1) * parts.keys);
    for (std::int64_t first = part * parts.keys; first < end; first += kernels::attention_chunk) {
        kernel({head<const S>(b.grad_out, n, h),
                head<const S>(b.q, n, h),
                head<const S>(b.k, n, h, first),
                head<const S>(b.v, n, h, first),
                head<const S>(b.out, n, h),
                head<A>(b.bias, h),
                b.lse.as<A>() + n * b.lse.step(0) + h * b.lse.step(1),
                b.lse.step(2),
                sums,
                head<S>(b.grad_k, n, h, first),
                head<S>(b.grad_v, n, h, first),
                sums + parts.query_numbers,
                s.queries,
                first,
                std::min(kernels::attention_chunk, end - first),
                s.key_depth,
                s.value_depth,
                static_cast<A>(b.scale),
                gamma,
                scratch.get()});
    }
}

// Writes grad_q for the queries of one block of head h of image n; the sums of its first part take the total.
template <class S, class A>
void write_queries(const Sizes& s, const Backward& b, const Parts& parts, std::int64_t n, std::int64_t h,
                   std::int64_t first, A* sums) {
    constexpr std::int64_t block = kernels::attention_queries;
    A* const total = sums + first * s.key_depth;
    for (std::int64_t x = 0; x < s.key_depth * block; ++x) {
        for (std::int64_t part = 1; part < parts.count; ++part) total[x] += total[x + part * parts.numbers()];
        total[x] *= static_cast<A>(b.scale);
    }
    attention_kernels<S>().put({total, 1, block}, std::min(block, s.queries - first), s.key_depth,
                               head<S>(b.grad_q, n, h, first));
}

// grad_gamma = sum of grad_out out: the sums of blocks, added in their order.
template <class S>
void write_gamma(const Sizes& s, const Backward& b) {
    using A = Accumulator<S>;
    constexpr std::int64_t block = kernels::attention_queries;
    const std::int64_t blocks = (s.queries + block - 1) / block, count = s.images * s.heads * blocks;
    const Buffer<double> sums(count);
    parallel_for(count, [&](std::int64_t task) {
        const std::int64_t n = task / blocks / s.heads, h = task / blocks % s.heads, first = task % blocks * block;
        const Buffer<A> scratch(2 * s.value_depth);
        sums[task] =
            attention_kernels<S>().dot(head<const S>(b.grad_out, n, h, first), head<const S>(b.out, n, h, first),
                                       std::min(block, s.queries - first), s.value_depth, scratch.get());
    });
    double total = 0.0;
    for (std::int64_t i = 0; i < count; ++i) total += sums[i];
    *b.gate->grad_gamma.as<A>() = static_cast<A>(total);
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
template <class S>
void run_backward(const Sizes& s, const Backward& b) {
    using A = Accumulator<S>;
    constexpr std::int64_t block = kernels::attention_queries;
    const Parts parts(s, b.bias);
    const std::int64_t heads = s.images * s.heads, blocks = (s.queries + block - 1) / block;
    const std::int64_t together = std::min(heads, (4 * threads() + parts.count - 1) / parts.count);
    const Buffer<A> sums(together * parts.count * parts.numbers());
    const auto sums_of = [&](std::int64_t i) { return sums.get() + i * parts.count * parts.numbers(); };
    for (std::int64_t h = 0; b.bias != nullptr && h < s.heads; ++h) add_bias<A>(b, parts, h, nullptr);
    for (std::int64_t first = 0; first < heads; first += together) {
        const std::int64_t count = std::min(together, heads - first);
        parallel_for(count * parts.count, [&](std::int64_t task) {
            const std::int64_t i = task / parts.count, part = task % parts.count;
            run_part<S>(s, b, parts, (first + i) / s.heads, (first + i) % s.heads, part,
                        sums_of(i) + part * parts.numbers());
        });
        parallel_for(count * blocks, [&](std::int64_t task) {
            const std::int64_t i = task / blocks;
            write_queries<S>(s, b, parts, (first + i) / s.heads, (first + i) % s.heads, task % blocks * block,
                             sums_of(i));
        });
        for (std::int64_t i = 0; b.bias != nullptr && i < count; ++i) {
            add_bias(b, parts, (first + i) % s.heads, sums_of(i));
        }
    }
}

}  // namespace

AttentionSizes check_attention(const Tensor& q, const Tensor& k, const Tensor& v, const Tensor& out, const Tensor& lse,
                               const GridBias* bias, const Gate* gate) {
    const Check checks("attention");
    const Sizes s = check(checks, q, k, v, out, lse);
    if (bias != nullptr) check_bias(checks, s, q, *bias);
    if (gate != nullptr) check_gate(checks, q, out, *gate);
    checks.output({"out", out});
    checks.output({"lse", lse});
    std::vector<Named> outputs = {{"out", out}, {"lse", lse}}, inputs = {{"q", q}, {"k", k}, {"v", v}};
    if (bias != nullptr) inputs.push_back({"bias", bias->table});
    if (gate != nullptr) inputs.push_back({"residual", gate->residual});
    if (gate != nullptr) inputs.push_back({"gamma", gate->gamma});
    if (gate != nullptr && gate->attended != nullptr) outputs.push_back({"attended", *gate->attended});
    checks.apart(outputs, inputs);
    return s;
}

void attention(const Tensor& q, const Tensor& k, const Tensor& v, const Tensor& out, const Tensor& lse, double scale,
               const GridBias* bias, const Gate* gate) {
    const Sizes s = check_attention(q, k, v, out, lse, bias, gate);
    for_stored(q.dtype, [&]<class S>() { run_forward<S>(s, q, k, v, out, lse, scale, bias, gate); });
}

AttentionSizes check_attention_backward(const Tensor& grad_out, const Tensor& q, const Tensor& k, const Tensor& v,
                                        const Tensor& out, const Tensor& lse, const Tensor& grad_q,
                                        const Tensor& grad_k, const Tensor& grad_v, const GridBias* bias,
                                        const Tensor* grad_bias, const GateGradient* gate) {
    const Check checks("attention_backward");
    const Sizes s = check(checks, q, k, v, out, lse);
    checks.floating({{"q", q}, {"grad_out", grad_out}, {"grad_q", grad_q}, {"grad_k", grad_k}, {"grad_v", grad_v}},
                    storable);
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
        checks.dtype({"grad_bias", *grad_bias}, {accumulator(q)});
        checks.same_shape({"grad_bias", *grad_bias}, {"bias", bias->table});
        checks.output({"grad_bias", *grad_bias});
    }
    if (gate != nullptr) {
        check_gamma(checks, q, {"gamma", gate->gamma});
        check_gamma(checks, q, {"grad_gamma", gate->grad_gamma});
        checks.output({"grad_gamma", gate->grad_gamma});
    }
    std::vector<Named> outputs = {{"grad_q", grad_q}, {"grad_k", grad_k}, {"grad_v", grad_v}};
    std::vector<Named> inputs = {{"grad_out", grad_out}, {"q", q}, {"k", k}, {"v", v}, {"out", out}, {"lse", lse}};
    if (bias != nullptr) outputs.push_back({"grad_bias", *grad_bias});
    if (bias != nullptr) inputs.push_back({"bias", bias->table});
    if (gate != nullptr) outputs.push_back({"grad_gamma", gate->grad_gamma});
    if (gate != nullptr) inputs.push_back({"gamma", gate->gamma});
    checks.apart(outputs, inputs);
    return s;
}

void attention_backward(const Tensor& grad_out, const Tensor& q, const Tensor& k, const Tensor& v, const Tensor& out,
                        const Tensor& lse, const Tensor& grad_q, const Tensor& grad_k, const Tensor& grad_v,
                        double scale, const GridBias* bias, const Tensor* grad_bias, const GateGradient* gate) {
    const Sizes s =
        check_attention_backward(grad_out, q, k, v, out, lse, grad_q, grad_k, grad_v, bias, grad_bias, gate);
    const Backward all{grad_out, q, k, v, out, lse, grad_q, grad_k, grad_v, scale, bias, grad_bias, gate};
    for_stored(q.dtype, [&]<class S>() {
        run_backward<S>(s, all);
        if (gate != nullptr) write_gamma<S>(s, all);
    });
}

}  // namespace normscan

// attention, with and without a bias by relative position, and its backward.
#include "arrays.hpp"

using namespace normscan;

namespace {

struct Size {
    std::int64_t n, heads, queries, keys, dk, dv;
    std::int64_t height = 0, width = 0;  // of the grid, where there is a bias
};

struct Inputs {
    Doubles q, k, v, bias;
};

// [out, lse], one after the other.
Doubles truth(const Size& s, const Inputs& in, double scale) {
    Doubles out, lse;
    const auto at = [](const Doubles& x, std::int64_t i) { return x[static_cast<std::size_t>(i)]; };
    for (std::int64_t head = 0; head < s.n * s.heads; ++head) {
        for (std::int64_t i = 0; i < s.queries; ++i) {
            Doubles weight;
            double sum = 0.0;
            for (std::int64_t j = 0; j < s.keys; ++j) {
                double score = 0.0;
                for (std::int64_t c = 0; c < s.dk; ++c) {
                    score += at(in.q, (head * s.queries + i) * s.dk + c) * at(in.k, (head * s.keys + j) * s.dk + c);
                }
                score *= scale;
                if (s.width > 0) {
                    const std::int64_t dy = s.height - 1 + i / s.width - j / s.width;
                    const std::int64_t dx = s.width - 1 + i % s.width - j % s.width;
                    const std::int64_t table = head % s.heads * (2 * s.height - 1) + dy;
                    score += at(in.bias, table * (2 * s.width - 1) + dx);
                }
                weight.push_back(std::exp(score));
                sum += weight.back();
            }
            lse.push_back(std::log(sum));
            for (std::int64_t c = 0; c < s.dv; ++c) {
                double value = 0.0;
                for (std::int64_t j = 0; j < s.keys; ++j)
                    value += at(weight, j) * at(in.v, (head * s.keys + j) * s.dv + c);
                out.push_back(value / sum);
            }
        }
    }
    out.insert(out.end(), lse.begin(), lse.end());
    return out;
}

template <class T>
void run(const Size& s, Layout layout) {
    // The rows of heads must lie in one piece: channels_last is for pictures.
    if (layout == Layout::channels_last) return;
    const bool biased = s.width > 0;
    constexpr double scale = 0.7;
    Array<T> q({s.n, s.heads, s.queries, s.dk}, layout), k({s.n, s.heads, s.keys, s.dk}, layout);
    Array<T> v({s.n, s.heads, s.keys, s.dv}, layout), lse({s.n, s.heads, s.queries}, layout);
    Array<T> out({s.n, s.heads, s.queries, s.dv}, layout), grad_out({s.n, s.heads, s.queries, s.dv}, layout);
    const Shape table = {s.heads, std::max<std::int64_t>(0, 2 * s.height - 1),
                         std::max<std::int64_t>(0, 2 * s.width - 1)};
    Array<T> bias(table, layout), grad_bias(table, layout);
    q.fill(1), k.fill(2), v.fill(3), grad_out.fill(4), bias.fill(5);
    const GridBias grid{bias, s.height, s.width};
    const GridBias* const on_grid = biased ? &grid : nullptr;
    with_any_threads([&] { attention(q, k, v, out, lse, scale, on_grid); }, out, lse);
    const Inputs in{q.doubles(), k.doubles(), v.doubles(), bias.doubles()};
    const Doubles both = truth(s, in, scale);
    const auto border = both.begin() + static_cast<std::ptrdiff_t>(out.count());
    expect("attention: out", out, Doubles(both.begin(), border), bound<T>());
    expect("attention: lse", lse, Doubles(border, both.end()), bound<T>());

    Array<T> grad_q({s.n, s.heads, s.queries, s.dk}, layout), grad_k({s.n, s.heads, s.keys, s.dk}, layout);
    Array<T> grad_v({s.n, s.heads, s.keys, s.dv}, layout);
    const auto backward = [&] {
        attention_backward(grad_out, q, k, v, out, lse, grad_q, grad_k, grad_v, scale, on_grid,
                           biased ? &grad_bias.tensor() : nullptr);
    };
    if (biased) {
        with_any_threads(backward, grad_q, grad_k, grad_v, grad_bias);
    } else {
        with_any_threads(backward, grad_q, grad_k, grad_v);
    }
    const Doubles g = grad_out.doubles();
    const auto slope = [&](const char* name, const Array<T>& gradient, Doubles Inputs::* member) {
        const auto loss = [&](const Doubles& x) {
            Inputs changed = in;
            changed.*member = x;
            const Doubles found = truth(s, changed, scale);
            double sum = 0.0;
            for (std::size_t i = 0; i < g.size(); ++i) sum += g[i] * found[i];
            return sum;
        };
        expect_gradient(name, gradient, in.*member, loss, slope_bound<T>());
    };
    slope("grad_q", grad_q, &Inputs::q);
    slope("grad_k", grad_k, &Inputs::k);
    slope("grad_v", grad_v, &Inputs::v);
    if (biased) slope("grad_bias", grad_bias, &Inputs::bias);
}

constexpr Size sizes[] = {
    {0, 2, 3, 4, 5, 6},   {1, 1, 1, 1, 1, 1},         {2, 2, 19, 19, 3, 7},        {1, 1, 111, 19, 16, 8},
    {1, 1, 2, 600, 1, 2}, {1, 2, 15, 15, 4, 3, 3, 5}, {1, 1, 76, 76, 5, 2, 4, 19},
};

TEST(attention_everywhere) {
    for (const Size& s : sizes) {
        for (const Layout layout : layouts) {
            run<float>(s, layout);
            if (layout == Layout::contiguous) run<double>(s, layout);
        }
    }
}

}  // namespace

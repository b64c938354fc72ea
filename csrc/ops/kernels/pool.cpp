#include "ops/kernels/pool.hpp"

#include "ops/kernels/simd.hpp"

namespace normscan::kernels {
namespace {

// Elements side by side: whole vectors, the rest one by one. Several vectors, so that one need not wait for another.
template <class T>
RowSummary extremes(const T* data, std::int64_t count) {
    constexpr int vectors = 4;
    Vec<T> largest[vectors];
    for (int v = 0; v < vectors; ++v) largest[v] = splat(data[0]);
    auto unordered = largest[0] != largest[0];
    std::int64_t i = 0;
    for (; i + vectors * lanes<T> <= count; i += vectors * lanes<T>) {
        for (int v = 0; v < vectors; ++v) {
            const Vec<T> x = load(data + i + v * lanes<T>);
            largest[v] = x > largest[v] ? x : largest[v];
            unordered |= x != x;
        }
    }
    T maximum = data[0];
    bool has_nan = false;
    for (int l = 0; l < lanes<T>; ++l) {
        has_nan = has_nan || unordered[l] != 0;
        for (int v = 0; v < vectors; ++v) maximum = largest[v][l] > maximum ? largest[v][l] : maximum;
    }
    for (; i < count; ++i) {
        maximum = data[i] > maximum ? data[i] : maximum;
        has_nan = has_nan || data[i] != data[i];
    }
    return {0.0, static_cast<double>(maximum), has_nan};
}

template <class T>
RowSummary strided_extremes(const PoolRow<T>& row) {
    T maximum = row.data[0];
    bool has_nan = false;
    for (std::int64_t i = 0; i < row.count; ++i) {
        const T x = row.data[i * row.step];
        maximum = x > maximum ? x : maximum;
        has_nan = has_nan || x != x;
    }
    return {0.0, static_cast<double>(maximum), has_nan};
}

template <class T>
RowSummary summarise(const PoolRow<T>& row) {
    RowSummary summary = row.step == 1 ? extremes(row.data, row.count) : strided_extremes(row);
    if (!row.with_sum) return summary;
    const T* const data = row.data;
    const std::int64_t step = row.step;
    summary.sum =
        step == 1
            ? sum_in_lanes<double>(row.count, [=](std::int64_t i) { return static_cast<double>(data[i]); })
            : sum_in_lanes<double>(row.count, [=](std::int64_t i) { return static_cast<double>(data[i * step]); });
    return summary;
}

}  // namespace

const PoolTable NORMSCAN_TABLE(pool) = {summarise<float>, summarise<double>};

}  // namespace normscan::kernels

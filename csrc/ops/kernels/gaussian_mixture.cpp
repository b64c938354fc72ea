#include "ops/kernels/gaussian_mixture.hpp"

#include "ops/kernels/gather.hpp"
#include "ops/kernels/gaussian_distance.hpp"

namespace normscan::kernels {
namespace {

constexpr std::int64_t B = gaussian_positions;

// sum e^top += e^(log - d2 / 2), in place. A NaN stays in `sum`; a component of weight 0 (log -inf) adds nothing.
template <class T>
void add_component(T log, const T* squared_distances, T* top, T* sum) {
    const T lowest = static_cast<T>(-__builtin_inf());
    for (std::int64_t p = 0; p < B; p += lanes<T>) {
        const Vec<T> exponent = log - T(0.5) * load(squared_distances + p), before = load(top + p);
        const Vec<T> larger = exponent < before ? before : exponent;
        const Vec<T> shift = larger == lowest ? Vec<T>{} : larger;  // -inf - -inf is no number
        store(sum + p, load(sum + p) * exponential(before - shift) + exponential(exponent - shift));
        store(top + p, larger);
    }
}

template <class T>
void forward(const GaussianMixture<T>& a) {
    T* const z = a.scratch;
    T* const x = z + a.channels * B;
    const std::int64_t full = a.form == Whitener::full ? a.channels * a.channels : 0;
    const std::int64_t entries = full > 0 ? full : a.form == Whitener::diagonal ? a.channels : 1;
    T top[B], sum[B] = {};
    for (T& value : top) value = static_cast<T>(-__builtin_inf());
    gather(a.z, a.first, a.count, a.channels, static_cast<const T*>(nullptr), z, B);
    for (std::int64_t k = 0; k < a.components; ++k) {
        const T* const mean = a.means + k * a.channels;
        for (std::int64_t c = 0; c < a.channels; ++c) {
            for (std::int64_t p = 0; p < B; ++p) x[c * B + p] = z[c * B + p] - mean[c];
        }
        T squared_distances[B] = {};
        add_squared_distances(a.whiteners + k * entries, a.form, a.channels, x, x + a.channels * B, squared_distances);
        add_component(a.logs[k], squared_distances, top, sum);
    }
    for (std::int64_t p = 0; p < a.count; ++p) sum[p] = -top[p] - logarithm(sum[p]);
    scatter(sum, a.out, a.first, a.count);
}

}  // namespace

const GaussianMixtureTable NORMSCAN_TABLE(gaussian_mixture) = {{forward<float>}, {forward<double>}};

}  // namespace normscan::kernels

#include "ops/kernels/resample.hpp"

namespace normscan::kernels {
namespace {

template <class T>
void resample(const ResampleRows<T>& a) {
    for (std::int64_t y = a.begin; y < a.end; ++y) {
        const T* const low = a.map.data + a.rows.low[y] * a.map.row;
        const T* const high = a.map.data + a.rows.high[y] * a.map.row;
        const T share = a.rows.share[y];
        for (std::int64_t x = 0; x < a.map.width; ++x) {
            a.scratch[x] = (T(1) - share) * low[x * a.map.column] + share * high[x * a.map.column];
        }
        T* const to = a.out.data + y * a.out.row;
        for (std::int64_t x = 0; x < a.out.width; ++x) {
            const T s = a.columns.share[x];
            to[x * a.out.column] = (T(1) - s) * a.scratch[a.columns.low[x]] + s * a.scratch[a.columns.high[x]];
        }
    }
}

}  // namespace

const ResampleTable NORMSCAN_TABLE(resample) = {resample<float>, resample<double>};

}  // namespace normscan::kernels

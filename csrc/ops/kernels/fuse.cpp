#include "ops/kernels/fuse.hpp"

namespace normscan::kernels {
namespace {

// Two rows of the map at the fused map's width. Most rows of the fused map lie between the same two as the row before:
// an input row is widened once, and what remains is a mixture of contiguous rows.
template <class T>
class WideRows {
  public:
    explicit WideRows(const FuseRows<T>& a) : a_(a), row_{a.scratch, a.scratch + a.out.width} {}

    const T* low(std::int64_t y) {
        if (held_[0] != y && held_[1] == y) swap();
        return hold(0, y);
    }
    const T* high(std::int64_t y) { return y == held_[0] ? row_[0] : hold(1, y); }

  private:
    void swap() {
        T* const row = row_[0];
        row_[0] = row_[1];
        row_[1] = row;
        held_[1] = held_[0];
        held_[0] = -1;
    }
    const T* hold(int slot, std::int64_t y) {
        if (held_[slot] == y) return row_[slot];
        const T* const from = a_.map.data + y * a_.map.row;
        for (std::int64_t x = 0; x < a_.out.width; ++x) {
            const T share = a_.columns.share[x];
            row_[slot][x] = (T(1) - share) * from[a_.columns.low[x] * a_.map.column] +
                            share * from[a_.columns.high[x] * a_.map.column];
        }
        held_[slot] = y;
        return row_[slot];
    }

    const FuseRows<T>& a_;
    T* row_[2];
    std::int64_t held_[2] = {-1, -1};
};

template <class T>
void fuse(const FuseRows<T>& a) {
    WideRows<T> wide(a);
    const std::int64_t width = a.out.width, column = a.out.column;
    for (std::int64_t y = a.begin; y < a.end; ++y) {
        const T* const low = wide.low(a.rows.low[y]);
        const T* const high = wide.high(a.rows.high[y]);
        const T from_low = a.factor * (T(1) - a.rows.share[y]), from_high = a.factor * a.rows.share[y];
        T* const to = a.out.data + y * a.out.row;
        if (a.step == FuseStep::set) {
            for (std::int64_t x = 0; x < width; ++x) to[x * column] = from_low * low[x] + from_high * high[x];
        } else if (a.step == FuseStep::add) {
            for (std::int64_t x = 0; x < width; ++x) to[x * column] += from_low * low[x] + from_high * high[x];
        } else {
            for (std::int64_t x = 0; x < width; ++x) to[x * column] *= from_low * low[x] + from_high * high[x];
        }
    }
}

}  // namespace

const FuseTable NORMSCAN_TABLE(fuse) = {fuse<float>, fuse<double>};

}  // namespace normscan::kernels

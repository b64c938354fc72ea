#include "ops/overlap.hpp"

#include <algorithm>
#include <cstdlib>
#include <utility>
#include <vector>

namespace normscan {
namespace {

std::int64_t element_bytes(DType dtype) {
    switch (dtype) {
        case DType::uint8:
            return 1;
        case DType::uint16:
        case DType::float16:
        case DType::bfloat16:
            return 2;
        case DType::float32:
            return 4;
        case DType::float64:
        case DType::int64:
            break;
    }
    return 8;
}

// Far above any memory, and far below where sums of two extents overflow.
constexpr std::int64_t most_bytes = std::int64_t{1} << 60;

bool empty(const Tensor& t) {
    return std::find(t.shape.begin(), t.shape.begin() + t.rank, 0) != t.shape.begin() + t.rank;
}

// (step, most): `step` is taken 0..most times.
using Term = std::pair<std::int64_t, std::int64_t>;

// Whether a sum of steps is exactly `target` (numpy's shares_memory asks the same): greatest steps first, and of each
// only as many as leave what the smaller ones can reach. Slices of one array leave one or two choices at each.
class Sums {
  public:
    explicit Sums(std::vector<Term> terms) {
        std::sort(terms.begin(), terms.end(), [](const Term& a, const Term& b) { return a.first > b.first; });
        for (const auto& [step, most] : terms) {  // equal steps are one
            if (terms_.empty() || terms_.back().first != step) terms_.emplace_back(step, 0);
            terms_.back().second += most;
        }
        rest_.assign(terms_.size() + 1, 0);
        for (std::size_t i = terms_.size(); i-- > 0;) rest_[i] = rest_[i + 1] + terms_[i].first * terms_[i].second;
    }
    bool reach(std::int64_t target, std::size_t i = 0) {
        if (target < 0 || target > rest_[i]) return false;
        if (i == terms_.size()) return true;
        const auto [step, most] = terms_[i];
        const std::int64_t least = std::max<std::int64_t>(0, (target - rest_[i + 1] + step - 1) / step);
        for (std::int64_t n = std::min(most, target / step); n >= least; --n) {
            if (--patience_ < 0 || reach(target - n * step, i + 1)) return true;
        }
        return false;
    }

  private:
    std::vector<Term> terms_;
    std::vector<std::int64_t> rest_;  // what the terms from i on can add up to
    int patience_ = 4096;
};

void add_terms(const Tensor& t, std::int64_t bytes, std::vector<Term>& terms) {
    for (int i = 0; i < t.rank; ++i) {
        if (t.size(i) > 1 && t.step(i) != 0) terms.emplace_back(std::abs(t.step(i)) * bytes, t.size(i) - 1);
    }
    terms.emplace_back(1, bytes - 1);
}

}  // namespace

bool extent(const Tensor& t, Extent& found) {
    const std::int64_t bytes = element_bytes(t.dtype);
    std::int64_t all = bytes, before = 0, after = bytes;
    for (int i = 0; i < t.rank; ++i) {
        if (__builtin_mul_overflow(all, std::max<std::int64_t>(1, t.size(i)), &all)) return false;
        std::int64_t reach = 0;
        if (t.size(i) < 2) continue;
        if (__builtin_mul_overflow(t.step(i), bytes, &reach)) return false;
        if (__builtin_mul_overflow(reach, t.size(i) - 1, &reach)) return false;
        std::int64_t& side = reach < 0 ? before : after;
        if (__builtin_add_overflow(side, reach, &side)) return false;
    }
    found = {before, after};
    return all <= most_bytes && before >= -most_bytes && after <= most_bytes;
}

bool overlaps_itself(const Tensor& t) {
    if (empty(t)) return false;
    std::vector<Term> axes;
    for (int i = 0; i < t.rank; ++i) {
        if (t.size(i) > 1) axes.emplace_back(std::abs(t.step(i)), t.size(i) - 1);
    }
    std::sort(axes.begin(), axes.end());
    std::int64_t reach = 0;  // of the axes so far
    for (const auto& [step, most] : axes) {
        if (step <= reach) return true;
        reach += step * most;
    }
    return false;
}

bool overlap(const Tensor& a, const Tensor& b) {
    Extent at_a{}, at_b{};
    if (empty(a) || empty(b) || !extent(a, at_a) || !extent(b, at_b)) return false;
    // Both begin at their first byte in memory; b - a is a sum of steps of a minus a sum of steps of b. Counting those
    // of b from its end makes it a sum of both.
    const auto first_a = reinterpret_cast<std::intptr_t>(a.data) + at_a.before;
    const auto first_b = reinterpret_cast<std::intptr_t>(b.data) + at_b.before;
    const std::int64_t bytes_a = at_a.after - at_a.before, bytes_b = at_b.after - at_b.before;
    if (first_a - first_b >= bytes_b || first_b - first_a >= bytes_a) return false;
    std::vector<Term> terms;
    add_terms(a, element_bytes(a.dtype), terms);
    add_terms(b, element_bytes(b.dtype), terms);
    return Sums(std::move(terms)).reach(first_b - first_a + bytes_b - 1);
}

}  // namespace normscan

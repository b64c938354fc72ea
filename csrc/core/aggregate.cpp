// Image scores to patient (lesion, slide) scores.
#include <limits>
#include <vector>

#include "normscan/ops.hpp"
#include "ops/check.hpp"

namespace normscan {
namespace {

struct Group {
    std::int64_t count = 0, above = 0;
    double sum = 0.0, maximum = -std::numeric_limits<double>::infinity();
    bool has_nan = false;

    void add(double score, double threshold) {
        ++count;
        above += score > threshold;
        sum += score;
        maximum = score > maximum ? score : maximum;
        has_nan = has_nan || score != score;
    }
    double result(GroupMethod method) const {
        if (has_nan) return std::numeric_limits<double>::quiet_NaN();
        const auto n = static_cast<double>(count);
        if (method == GroupMethod::max) return maximum;
        return (method == GroupMethod::mean ? sum : static_cast<double>(above)) / n;
    }
};

}  // namespace

void aggregate(const Tensor& scores, const Tensor& groups, const Tensor& out, GroupMethod method, double parameter) {
    const Check check("aggregate");
    check.rank({"scores", scores}, {1}, "[N]");
    check.dtype({"scores", scores}, {DType::float64});
    check.dtype({"groups", groups}, {DType::int64});
    check.shape({"groups", groups}, {scores.size(0)}, "[N]");
    check.rank({"out", out}, {1}, "[G]");
    check.dtype({"out", out}, {DType::float64});
    check.strides({"scores", scores});
    check.strides({"groups", groups});
    check.output({"out", out});
    check.apart({{"out", out}}, {{"scores", scores}, {"groups", groups}});
    if (parameter != parameter) check.fail("parameter is NaN, expected a threshold");
    std::vector<Group> all(static_cast<std::size_t>(out.size(0)));
    for (std::int64_t i = 0; i < scores.size(0); ++i) {
        const std::int64_t g = groups.as<const std::int64_t>()[i * groups.step(0)];
        if (g < 0 || g >= out.size(0)) {
            check.fail("groups[", i, "] is ", g, ", expected 0..", out.size(0) - 1, " (out has ", out.size(0),
                       " groups)");
        }
        all[static_cast<std::size_t>(g)].add(scores.as<const double>()[i * scores.step(0)], parameter);
    }
    for (std::size_t g = 0; g < all.size(); ++g) {
        if (all[g].count == 0) check.fail("group ", g, " has no members; number groups 0..G-1 without gaps");
        out.as<double>()[static_cast<std::int64_t>(g) * out.step(0)] = all[g].result(method);
    }
}

}  // namespace normscan

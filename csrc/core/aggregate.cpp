// Image scores to patient (lesion, slide) scores.
#include <cmath>
#include <limits>
#include <vector>

#include "normscan/ops.hpp"
#include "ops/check.hpp"
#include "ops/pool.hpp"

namespace normscan {
namespace {

// What one pass over the scores knows of a group. `sum` is of the scores, or of log(1 - score) for noisy_or.
struct Group {
    std::int64_t count = 0, above = 0;
    double sum = 0.0, maximum = -std::numeric_limits<double>::infinity();
    bool has_nan = false;

    void add(double score, GroupMethod method, double threshold) {
        ++count;
        above += score > threshold;
        sum += method == GroupMethod::noisy_or ? std::log1p(-score) : score;
        maximum = score > maximum ? score : maximum;
        has_nan = has_nan || score != score;
    }
    // Not of topk, which needs the scores themselves.
    double result(GroupMethod method) const {
        if (has_nan) return std::numeric_limits<double>::quiet_NaN();
        const auto n = static_cast<double>(count);
        if (method == GroupMethod::max) return maximum;
        // 1 - e^sum would round a thousand chances of 1e-18 to none at all.
        if (method == GroupMethod::noisy_or) return 0.0 - std::expm1(sum);
        return (method == GroupMethod::mean ? sum : static_cast<double>(above)) / n;
    }
};

// The scores, and the group that each of them is in.
struct Members {
    const Tensor &scores, &groups;

    std::int64_t size() const { return scores.size(0); }
    double score(std::int64_t i) const { return scores.as<const double>()[i * scores.step(0)]; }
    std::int64_t group(std::int64_t i) const { return groups.as<const std::int64_t>()[i * groups.step(0)]; }
};

void check_tensors(const Check& check, const Tensor& scores, const Tensor& groups, const Tensor& out) {
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
}

void check_parameter(const Check& check, GroupMethod method, double parameter) {
    if (method == GroupMethod::topk) check.pooling(PoolMethod::topk, parameter);
    if (method == GroupMethod::fraction && parameter != parameter) {
        check.fail("parameter is NaN, expected a threshold");
    }
}

void check_member(const Check& check, const Members& members, std::int64_t i, std::int64_t count, GroupMethod method) {
    const std::int64_t g = members.group(i);
    if (g < 0 || g >= count) {
        check.fail("groups[", i, "] is ", g, ", expected 0..", count - 1, " (out has ", count, " groups)");
    }
    const double p = members.score(i);
    if (method == GroupMethod::noisy_or && (p < 0.0 || p > 1.0)) {
        check.fail("scores[", i, "] is ", p, ", expected a probability in 0..1 for noisy_or");
    }
}

// Scores side by side in the order of their groups: one array of N, whatever the groups.
std::vector<double> top_means(const Members& members, const std::vector<Group>& groups, double share) {
    std::vector<std::int64_t> end;  // of each group's scores; at first where they begin
    std::int64_t begin = 0;
    for (const Group& group : groups) {
        end.push_back(begin);
        begin += group.count;
    }
    std::vector<double> sorted(static_cast<std::size_t>(members.size()));
    for (std::int64_t i = 0; i < members.size(); ++i) {
        const std::int64_t at = end[static_cast<std::size_t>(members.group(i))]++;
        sorted[static_cast<std::size_t>(at)] = members.score(i);
    }
    std::vector<double> means;
    for (std::size_t g = 0; g < groups.size(); ++g) {
        double* const last = sorted.data() + end[g];
        // The order of NaNs is nobody's.
        means.push_back(groups[g].has_nan ? std::numeric_limits<double>::quiet_NaN()
                                          : top_mean(last - groups[g].count, last, share));
    }
    return means;
}

}  // namespace

void aggregate(const Tensor& scores, const Tensor& groups, const Tensor& out, GroupMethod method, double parameter) {
    const Check check("aggregate");
    check_tensors(check, scores, groups, out);
    check_parameter(check, method, parameter);
    const Members members = {scores, groups};
    std::vector<Group> all(static_cast<std::size_t>(out.size(0)));
    for (std::int64_t i = 0; i < members.size(); ++i) {
        check_member(check, members, i, out.size(0), method);
        all[static_cast<std::size_t>(members.group(i))].add(members.score(i), method, parameter);
    }
    for (std::size_t g = 0; g < all.size(); ++g) {
        if (all[g].count == 0) check.fail("group ", g, " has no members; number groups 0..G-1 without gaps");
    }
    std::vector<double> results;
    if (method == GroupMethod::topk) {
        results = top_means(members, all, parameter);
    } else {
        for (const Group& group : all) results.push_back(group.result(method));
    }
    for (std::size_t g = 0; g < all.size(); ++g) {
        out.as<double>()[static_cast<std::int64_t>(g) * out.step(0)] = results[g];
    }
}

}  // namespace normscan

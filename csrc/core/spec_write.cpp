// ScoringSpec -> canonical JSON.
#include "core/json.hpp"
#include "normscan/spec.hpp"

namespace normscan {
namespace {

using json::Array;
using json::Object;
using json::Value;

template <class Enum, std::size_t n>
Value name(const std::array<std::string_view, n>& names, Enum value) {
    return {std::string(names[static_cast<std::size_t>(value)])};
}

Value number(double value) {
    return {value};
}
Value number(std::int64_t value) {
    return {static_cast<double>(value)};
}

Value list(const std::vector<double>& values) {
    Array items;
    for (const double value : values) items.push_back({value});
    return {items};
}

Value write(const Pooling& pool) {
    const Value method = name(pool_names, pool.method);
    if (pool.method == PoolMethod::mean || pool.method == PoolMethod::max) return method;
    return {Object{{std::get<std::string>(method.data), number(pool.parameter)}}};
}

Value write(const std::optional<double>& value) {
    return value ? number(*value) : Value{nullptr};
}

Value write(const InputSpec& input) {
    return {Object{{"height", number(input.height)},
                   {"width", number(input.width)},
                   {"channels", number(input.channels)},
                   {"resize", name(resize_names, input.resize)},
                   {"mean", list(input.mean)},
                   {"std", list(input.std)}}};
}

void add(const Stain& stain, Object& to) {
    to.emplace_back("metric", name(stain_metric_names, stain.metric));
    if (stain.metric == StainMetric::residual) {
        to.emplace_back("cut", number(stain.cut));
        return;
    }
    to.emplace_back("hue", Value{Array{number(stain.hue[0]), number(stain.hue[1])}});
    to.emplace_back("least_saturation", number(stain.least_saturation));
    if (stain.window) to.emplace_back("window", number(std::int64_t{*stain.window}));
}

Value write(const Term& term) {
    Array of;
    for (const std::string& output : term.of) of.push_back({output});
    Object object = {{"op", name(term_op_names, term.op)},
                     {"of", {of}},
                     {"pool", write(term.pool)},
                     {"scale", write(term.scale)},
                     {"weight", number(term.weight)}};
    if (term.op == TermOp::value) {
        object.emplace_back("per", name(per_names, term.per));
        return {object};
    }
    if (term.op == TermOp::stain) {
        add(term.stain, object);
        return {object};
    }
    if (term.op != TermOp::distance) {
        object.emplace_back("stats", Value{term.stats});
        object.emplace_back("form", name(form_names, term.form));
        object.emplace_back("per", name(per_names, term.per));
        if (term.op == TermOp::gaussian) object.emplace_back("output", name(gaussian_output_names, term.output));
        if (term.output == GaussianOutput::saturated) object.emplace_back("saturation", number(term.saturation));
        return {object};
    }
    object.emplace_back("metric", name(metric_names, term.metric));
    if (term.metric == Metric::ssim || term.metric == Metric::cs)
        object.emplace_back("window", number(std::int64_t{term.window}));
    return {object};
}

Value write(const MapSpec& map) {
    Value size = {std::string("input")};
    if (map.size) size = {Array{number(map.size->first), number(map.size->second)}};
    return {Object{{"size", size}, {"blur_sigma", number(map.blur_sigma)}}};
}

Value write(const GroupSpec& group) {
    Value pool = name(group_names, group.pool);
    if (group.pool == GroupMethod::topk || group.pool == GroupMethod::fraction) {
        pool = {Object{{std::get<std::string>(pool.data), number(group.parameter)}}};
    }
    return {Object{{"pool", pool}, {"positive", write(group.positive)}, {"high", write(group.high)}}};
}

Value write(const Calibration& c) {
    return {Object{{"rule", {c.rule}},
                   {"threshold", number(c.threshold)},
                   {"n", number(c.n)},
                   {"target_specificity", number(c.target_specificity)},
                   {"interval", {Array{number(c.interval.first), number(c.interval.second)}}}}};
}

template <class T>
Value write_or_null(const std::optional<T>& value) {
    return value ? write(*value) : Value{nullptr};
}

}  // namespace

std::string ScoringSpec::json() const {
    Array all;
    for (const Term& term : terms) all.push_back(write(term));
    return json::write({Object{{"schema", number(1.0)},
                               {"family", {family}},
                               {"input", write(input)},
                               {"terms", {all}},
                               {"fuse", name(fuse_names, fuse)},
                               {"pool_at", name(pool_at_names, pool_at)},
                               {"pool", write_or_null(pool)},
                               {"map", write(map)},
                               {"group", write_or_null(group)},
                               {"calibration", write_or_null(calibration)}}});
}

}  // namespace normscan

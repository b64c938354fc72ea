// JSON -> ScoringSpec, with every check that needs no tensors.
#include "normscan/spec.hpp"

#include <algorithm>

#include "core/fields.hpp"

namespace normscan {
namespace {

constexpr std::int64_t largest_side = 1 << 16;
constexpr std::int64_t largest_window = 1001;
constexpr double largest_blur = 1e3;

std::vector<double> numbers(const Field& field, std::int64_t count, bool positive) {
    std::vector<double> result;
    for (const Field& item : field.items()) {
        result.push_back(item.number());
        if (positive && !(result.back() > 0.0)) item.fail_expected("a number > 0");
    }
    if (result.size() != static_cast<std::size_t>(count)) {
        field.fail_expected(std::to_string(count) + " numbers, one a channel");
    }
    return result;
}

InputSpec read_input(const Field& field) {
    const Fields f(field, {"height", "width", "channels", "resize", "mean", "std"});
    InputSpec input;
    input.height = f["height"].integer(1, largest_side);
    input.width = f["width"].integer(1, largest_side);
    input.channels = f["channels"].integer(1, 3);
    if (input.channels == 2) f["channels"].fail_expected("1 or 3");
    input.resize = f["resize"].one_of<Resize>(resize_names);
    input.mean = numbers(f["mean"], input.channels, false);
    input.std = numbers(f["std"], input.channels, true);
    return input;
}

double read_share(const Field& field) {
    const double share = field.number(0.0, 1.0);
    if (!(share > 0.0)) field.fail_expected("a share > 0 and <= 1");
    return share;
}

// "mean", "max", {"topk": share}, {"quantile": q} or {"area": threshold}
Pooling read_pooling(const Field& field) {
    if (field.is_text()) {
        constexpr std::array<std::string_view, 2> plain = {"mean", "max"};
        return {field.one_of<PoolMethod>(plain), 0.0};
    }
    const std::string expected = R"("mean", "max", {"topk": share}, {"quantile": 0..1} or {"area": threshold})";
    if (field.empty()) field.fail_expected(expected);
    const Fields f(field, {"topk", "quantile", "area"});
    if (field.object().size() != 1) field.fail_expected(expected);
    if (!f["quantile"].absent()) return {PoolMethod::quantile, f["quantile"].number(0.0, 1.0)};
    if (!f["area"].absent()) return {PoolMethod::area, f["area"].number()};
    return {PoolMethod::topk, read_share(f["topk"])};
}

int read_window(const Field& field) {
    const auto window = static_cast<int>(field.integer(3, largest_window));
    if (window % 2 == 0) field.fail_expected("an odd number");
    return window;
}

void read_distance(const Fields& f, Term& term) {
    term.metric = f["metric"].one_of<Metric>(metric_names);
    const Field window = f["window"];
    if (window.absent()) return;
    if (term.metric != Metric::ssim && term.metric != Metric::cs)
        window.fail("is for metrics ssim and cs only; leave it out");
    term.window = read_window(window);
}

void read_stain(const Fields& f, Stain& stain) {
    stain.metric = f["metric"].one_of<StainMetric>(stain_metric_names);
    const Field cut = f["cut"], hue = f["hue"], saturation = f["least_saturation"], window = f["window"];
    const bool residual = stain.metric == StainMetric::residual;
    if (!residual && !cut.absent()) cut.fail("is for metric residual only; leave it out");
    for (const Field& other : {hue, saturation, window}) {
        if (residual && !other.absent()) other.fail("is for metric red_ratio only; leave it out");
    }
    if (!cut.absent()) stain.cut = cut.number(-1.0, 1.0);
    if (!hue.absent()) {
        const std::vector<Field> ends = hue.items();
        if (ends.size() != 2) hue.fail_expected("[from, to] in degrees");
        stain.hue = {ends[0].number(0.0, 360.0), ends[1].number(0.0, 360.0)};
    }
    if (!saturation.absent()) stain.least_saturation = saturation.number(0.0, 1.0);
    if (!window.absent()) stain.window = read_window(window);
}

// Of a Gaussian or a mixture.
void read_gaussian(const Fields& f, Term& term) {
    term.stats = f["stats"].text();
    term.form = f["form"].one_of<Form>(form_names);
    term.per = f["per"].one_of<Per>(per_names);
    if (term.per == Per::position && term.form != Form::full) {
        f["form"].fail_expected("\"full\" where per is \"position\"");
    }
    if (term.op == TermOp::gaussian_mixture) {
        if (term.per == Per::position) f["per"].fail_expected("\"vector\" or \"position_shared\" for a mixture");
        return;
    }
    if (!f["output"].absent()) term.output = f["output"].one_of<GaussianOutput>(gaussian_output_names);
    const Field saturation = f["saturation"];
    if (term.output == GaussianOutput::saturated) {
        term.saturation = saturation.number();
        if (!(term.saturation > 0.0)) saturation.fail_expected("a number > 0");
    } else if (!saturation.absent()) {
        saturation.fail("is for output saturated only; leave it out");
    }
}

// An output that is a score already: one a picture, or a map of them.
void read_value(const Fields& f, Term& term) {
    term.per = f["per"].one_of<Per>(per_names);
    if (term.per == Per::position_shared) f["per"].fail_expected("\"vector\" or \"position\" for a value");
}

void read_op(const Fields& f, Term& term) {
    switch (term.op) {
        case TermOp::distance:
            return read_distance(f, term);
        case TermOp::stain:
            return read_stain(f, term.stain);
        case TermOp::gaussian:
        case TermOp::gaussian_mixture:
            return read_gaussian(f, term);
        case TermOp::value:
            return read_value(f, term);
    }
}

Fields term_fields(const Field& field, TermOp op) {
    switch (op) {
        case TermOp::distance:
            return {field, {"op", "of", "metric", "window", "pool", "scale", "weight"}};
        case TermOp::stain:
            return {field,
                    {"op", "of", "metric", "cut", "hue", "least_saturation", "window", "pool", "scale", "weight"}};
        case TermOp::gaussian:
            return {field, {"op", "of", "stats", "form", "per", "output", "saturation", "pool", "scale", "weight"}};
        case TermOp::gaussian_mixture:
            return {field, {"op", "of", "stats", "form", "per", "pool", "scale", "weight"}};
        case TermOp::value:
            break;
    }
    return {field, {"op", "of", "per", "pool", "scale", "weight"}};
}

Term read_term(const Field& field) {
    Term term;
    const auto entry = std::find_if(field.object().begin(), field.object().end(),
                                    [](const auto& member) { return member.first == "op"; });
    term.op = Field(entry == field.object().end() ? nullptr : &entry->second, field.path() + ".op")
                  .one_of<TermOp>(term_op_names);
    const bool two = compares_two(term.op);
    const Fields f = term_fields(field, term.op);
    for (const Field& name : f["of"].items()) term.of.push_back(name.text());
    if (term.of.size() != (two ? 2u : 1u)) {
        f["of"].fail_expected(two ? "two names: what is judged, and its reference" : "one name");
    }
    read_op(f, term);
    if (!f["pool"].absent()) term.pool = read_pooling(f["pool"]);
    if (!f["scale"].empty()) {
        term.scale = f["scale"].number();
        if (!(*term.scale > 0.0)) f["scale"].fail_expected("a number > 0, or null");
    }
    if (!f["weight"].absent()) term.weight = f["weight"].number(0.0);
    if (!two && term.per == Per::vector && term.pool.method != PoolMethod::mean) {
        f["pool"].fail_expected("\"mean\" or nothing: a vector has no positions to pool");
    }
    return term;
}

MapSpec read_map(const Field& field) {
    MapSpec map;
    if (field.absent()) return map;
    const Fields f(field, {"size", "blur_sigma"});
    const Field size = f["size"];
    if (size.is_text()) {
        if (size.text() != "input") size.fail_expected("\"input\" or [height, width]");
    } else if (!size.absent()) {
        const std::vector<Field> sides = size.items();
        if (sides.size() != 2) size.fail_expected("\"input\" or [height, width]");
        map.size = {sides[0].integer(1, largest_side), sides[1].integer(1, largest_side)};
    }
    if (!f["blur_sigma"].absent()) map.blur_sigma = f["blur_sigma"].number(0.0, largest_blur);
    return map;
}

// "mean", "max", "noisy_or", {"topk": share} or {"fraction": threshold}
void read_group_pool(const Field& field, GroupSpec& group) {
    if (field.is_text()) {
        constexpr std::array<std::string_view, 3> plain = {"mean", "max", "noisy_or"};
        group.pool = field.one_of<GroupMethod>(plain);
        return;
    }
    const std::string expected = R"("mean", "max", "noisy_or", {"topk": share} or {"fraction": threshold})";
    if (field.empty()) field.fail_expected(expected);
    const Fields f(field, {"topk", "fraction"});
    if (field.object().size() != 1) field.fail_expected(expected);
    group.pool = f["topk"].absent() ? GroupMethod::fraction : GroupMethod::topk;
    group.parameter = group.pool == GroupMethod::topk ? read_share(f["topk"]) : f["fraction"].number();
}

std::optional<GroupSpec> read_group(const Field& field) {
    if (field.empty()) return std::nullopt;
    const Fields f(field, {"pool", "positive", "high"});
    GroupSpec group;
    read_group_pool(f["pool"], group);
    const Field positive = f["positive"], high = f["high"];
    if (!positive.empty()) group.positive = positive.number();
    if (high.empty()) return group;
    group.high = high.number();
    if (!group.positive) high.fail_expected("null, since " + positive.path() + " is null");
    if (*group.high < *group.positive) {
        high.fail_expected("a number >= " + json::number_text(*group.positive) + ", which is " + positive.path());
    }
    return group;
}

std::optional<Calibration> read_calibration(const Field& field) {
    if (field.empty()) return std::nullopt;
    const Fields f(field, {"rule", "threshold", "n", "target_specificity", "interval"});
    Calibration c;
    c.rule = f["rule"].text();
    if (c.rule != "order_statistic") f["rule"].fail_expected("\"order_statistic\"");
    c.threshold = f["threshold"].number();
    c.n = f["n"].integer(1, std::int64_t{1} << 40);
    c.target_specificity = f["target_specificity"].number(0.0, 1.0);
    const std::vector<Field> interval = f["interval"].items();
    if (interval.size() != 2) f["interval"].fail_expected("[low, high]");
    c.interval = {interval[0].number(), interval[1].number()};
    if (c.interval.first > c.interval.second) f["interval"].fail_expected("[low, high] with low <= high");
    return c;
}

// A stain is compared by its colour in the picture, which the network's outputs have only where its input does.
void check_stain_input(const InputSpec& input, const std::string& term) {
    const auto check = [&](const std::string& key, double found, double expected) {
        if (found == expected) return;
        Field(nullptr, "input." + key)
            .fail("is " + json::number_text(found) + ", expected " + json::number_text(expected) + ", since " + term +
                  " is \"stain\", of RGB in 0..1");
    };
    check("channels", static_cast<double>(input.channels), 3.0);
    for (std::size_t c = 0; c < 3; ++c) {
        check("mean[" + std::to_string(c) + "]", input.mean[c], 0.0);
        check("std[" + std::to_string(c) + "]", input.std[c], 1.0);
    }
}

// What fields say together.
void check_together(const Fields& f, const ScoringSpec& spec) {
    const auto term_path = [](std::size_t i, const char* key) {
        return Field(nullptr, "terms[" + std::to_string(i) + "]." + key);
    };
    const auto weighs = [](const Term& term) { return term.weight > 0.0; };
    if (std::none_of(spec.terms.begin(), spec.terms.end(), weighs)) {
        f["terms"].fail("has no weight above 0, expected at least one");
    }
    for (std::size_t i = 0; i < spec.terms.size(); ++i) {
        const Term& term = spec.terms[i];
        if (term.op == TermOp::stain) check_stain_input(spec.input, term_path(i, "op").path());
        if (spec.fuse == Fuse::product && term.weight != 1.0) {
            term_path(i, "weight")
                .fail("is " + json::number_text(term.weight) + ", expected 1 where fuse is \"product\"");
        }
        if (spec.pool_at == PoolAt::image && term.pool.method != PoolMethod::mean) {
            term_path(i, "pool").fail("would be ignored where pool_at is \"image\"; set the top-level pool instead");
        }
    }
    if (spec.pool_at == PoolAt::image) {
        if (!spec.pool) f["pool"].fail_expected("a pooling, since pool_at is \"image\"");
        return;
    }
    if (spec.fuse == Fuse::product) f["pool_at"].fail("is \"term\", expected \"image\" where fuse is \"product\"");
    if (spec.pool) f["pool"].fail_expected("null, since pool_at is \"term\" and each term has its own pool");
}

}  // namespace

ScoringSpec ScoringSpec::parse(std::string_view json) {
    const json::Value document = json::parse(json, "spec");
    const Fields f(Field(&document, ""),
                   {"schema", "family", "input", "terms", "fuse", "pool_at", "pool", "map", "group", "calibration"});
    f["schema"].integer(1, 1);
    ScoringSpec spec;
    spec.family = f["family"].text();
    spec.input = read_input(f["input"]);
    for (const Field& term : f["terms"].items()) spec.terms.push_back(read_term(term));
    if (spec.terms.empty()) f["terms"].fail_expected("at least one term");
    if (!f["fuse"].absent()) spec.fuse = f["fuse"].one_of<Fuse>(fuse_names);
    if (!f["pool_at"].absent()) spec.pool_at = f["pool_at"].one_of<PoolAt>(pool_at_names);
    if (!f["pool"].empty()) spec.pool = read_pooling(f["pool"]);
    spec.map = read_map(f["map"]);
    spec.group = read_group(f["group"]);
    spec.calibration = read_calibration(f["calibration"]);
    check_together(f, spec);
    return spec;
}

}  // namespace normscan

#include "core/scorer.hpp"

#include <algorithm>
#include <bit>
#include <cmath>
#include <deque>
#include <limits>

#include "ops/buffer.hpp"
#include "ops/check.hpp"
#include "ops/fuse.hpp"
#include "ops/parallel.hpp"

namespace normscan {
namespace {

constexpr double nan = std::numeric_limits<double>::quiet_NaN();

std::string quoted_name(const std::string& name) {
    return "output \"" + name + "\"";
}

// Appends `count` elements of t, from element `first` on, as float32.
void append(const Tensor& t, std::int64_t first, std::int64_t count, std::int64_t step, std::vector<float>& to) {
    for (std::int64_t i = 0; i < count; ++i) {
        const std::int64_t at = first + i * step;
        to.push_back(t.dtype == DType::float64 ? static_cast<float>(t.as<const double>()[at])
                                               : t.as<const float>()[at]);
    }
}

// A float32 copy of a tensor of rank 1 to 3 in contiguous memory.
std::vector<float> copied(const Tensor& t) {
    const std::int64_t planes = t.rank > 2 ? t.size(t.rank - 3) : 1, plane = t.rank > 2 ? t.step(t.rank - 3) : 0;
    const std::int64_t rows = t.rank > 1 ? t.size(t.rank - 2) : 1, row = t.rank > 1 ? t.step(t.rank - 2) : 0;
    const std::int64_t columns = t.size(t.rank - 1), column = t.step(t.rank - 1);
    std::vector<float> values;
    values.reserve(static_cast<std::size_t>(planes * rows * columns));
    for (std::int64_t i = 0; i < planes; ++i) {
        for (std::int64_t j = 0; j < rows; ++j) append(t, i * plane + j * row, columns, column, values);
    }
    return values;
}

// The lower triangles of [H,W,C,C], packed.
std::vector<float> triangles(const Tensor& t) {
    const std::int64_t c = t.size(2);
    std::vector<float> values;
    values.reserve(static_cast<std::size_t>(t.size(0) * t.size(1) * c * (c + 1) / 2));
    for (std::int64_t y = 0; y < t.size(0); ++y) {
        for (std::int64_t x = 0; x < t.size(1); ++x) {
            const std::int64_t position = y * t.step(0) + x * t.step(1);
            for (std::int64_t i = 0; i < c; ++i) append(t, position + i * t.step(2), i + 1, t.step(3), values);
        }
    }
    return values;
}

// A term's own map [N,height,width]; for per "vector" one value an image, height = width = 1.
struct TermMap {
    std::int64_t images, height, width;
    Buffer<float> data;

    explicit TermMap(const Tensor& output)
        : images(output.size(0)),
          height(output.rank == 2 ? 1 : output.size(2)),
          width(output.rank == 2 ? 1 : output.size(3)),
          data(images * height * width) {}
    Tensor maps() const { return contiguous(data.get(), {images, height, width}); }
    Tensor vector() const { return contiguous(data.get(), {images}); }
};

// Whether all of `count` values are finite. An exponent of ones carries into the sign: no comparison a value.
bool all_finite(const float* values, std::int64_t count, std::int64_t step) {
    std::uint32_t seen = 0;
    const auto look = [&](float value) { seen |= (std::bit_cast<std::uint32_t>(value) & 0x7f800000u) + 0x00800000u; };
    if (step == 1) {
        for (std::int64_t i = 0; i < count; ++i) look(values[i]);
    } else {
        for (std::int64_t i = 0; i < count; ++i) look(values[i * step]);
    }
    return (seen & 0x80000000u) == 0;
}

// finite[n]: whether every value of image n is. Any strides, rank 2 to 4.
void mark_finite(const Tensor& t, std::vector<char>& finite) {
    std::array<std::int64_t, 3> size = {1, 1, 1}, step = {0, 0, 0};
    for (int i = 1; i < t.rank; ++i) {
        const auto at = static_cast<std::size_t>(3 - t.rank + i);
        size[at] = t.size(i);
        step[at] = t.step(i);
    }
    if (step[1] == size[2] * step[2]) {  // rows that follow one another are one
        size[2] *= size[1];
        size[1] = 1;
    }
    std::vector<char> planes(static_cast<std::size_t>(t.size(0) * size[0]), true);
    parallel_for(t.size(0) * size[0], [&](std::int64_t task) {
        const float* const plane = t.as<const float>() + task / size[0] * t.step(0) + task % size[0] * step[0];
        bool all = true;
        for (std::int64_t i = 0; i < size[1]; ++i) all &= all_finite(plane + i * step[1], size[2], step[2]);
        planes[static_cast<std::size_t>(task)] = all;
    });
    for (std::size_t i = 0; i < planes.size(); ++i) {
        if (!planes[i]) finite[i / static_cast<std::size_t>(size[0])] = false;
    }
}

// An output [N,1] or [N,1,H,W] as a term's map.
void take(const Tensor& output, const TermMap& map) {
    const std::int64_t down = output.rank == 4 ? output.step(2) : 0, right = output.rank == 4 ? output.step(3) : 0;
    parallel_for(map.images, [&](std::int64_t n) {
        const float* const from = output.as<const float>() + n * output.step(0);
        float* to = map.data.get() + n * map.height * map.width;
        for (std::int64_t y = 0; y < map.height; ++y) {
            for (std::int64_t x = 0; x < map.width; ++x) *to++ = from[y * down + x * right];
        }
    });
}

void fuse_and_blur(std::span<const Tensor> maps, std::span<const double> factors, const ScoringSpec& spec,
                   const Tensor& out) {
    const Buffer<float> fused(out.size(0) * out.size(1) * out.size(2));
    const Tensor sharp = contiguous(fused.get(), {out.size(0), out.size(1), out.size(2)});
    fuse(maps, factors, sharp, spec.fuse);
    smooth(sharp, out, spec.map.blur_sigma);
}

}  // namespace

const Tensor& find(const NamedTensors& tensors, const std::string& name, std::string_view what) {
    const auto found = tensors.find(name);
    if (found != tensors.end()) return found->second;
    std::string given;
    for (const auto& entry : tensors) given.append(given.empty() ? "" : ", ").append(entry.first);
    fail("scorer: ", what, " \"", name, "\" is missing; given: ", given.empty() ? "none" : given);
}

struct Scorer::Statistics {
    std::vector<float> mean, whitener;  // per "position": [C,H,W] and packed triangles
    Form form;
    std::int64_t channels, height = 0, width = 0;  // height and width: per "position"
    GaussianOutput output = GaussianOutput::squared_distance;
    double saturation = 1.0;
    std::vector<float> log_weights = {};  // of a mixture, whose mean and whitener are [K,...]

    // Views of them, in the shapes that the ops take.
    Tensor means() {
        if (height > 0) return contiguous(mean.data(), {channels, height, width});
        if (log_weights.empty()) return contiguous(mean.data(), {channels});
        return contiguous(mean.data(), {components(), channels});
    }
    Tensor whiteners() {
        const auto entries = static_cast<std::int64_t>(whitener.size());
        if (height > 0) return contiguous(whitener.data(), {height, width, channels * (channels + 1) / 2});
        if (log_weights.empty()) {
            return form == Form::full ? contiguous(whitener.data(), {channels, channels})
                                      : contiguous(whitener.data(), {entries});
        }
        return form == Form::full ? contiguous(whitener.data(), {components(), channels, channels})
                                  : contiguous(whitener.data(), {components(), entries / components()});
    }
    Tensor weights() { return contiguous(log_weights.data(), {components()}); }

    // How far output z lies from the statistics.
    void measure(const Tensor& z, const TermMap& map) {
        const Tensor out = z.rank == 2 ? map.vector() : map.maps();
        if (height > 0) return gaussian_positions(z, means(), whiteners(), out, output, saturation);
        if (!log_weights.empty()) return gaussian_mixture(z, means(), whiteners(), weights(), out);
        gaussian(z, means(), whiteners(), out, output, saturation);
    }

    static std::unique_ptr<Statistics> read(const Term& term, const NamedTensors& stats) {
        const std::string mean_name = term.stats + ".mean", whitener_name = term.stats + ".whitener";
        const Named mean = {mean_name, find(stats, mean_name, "statistic")};
        const Named whitener = {whitener_name, find(stats, whitener_name, "statistic")};
        const Check check("scorer");
        check.dtype(mean, {DType::float32, DType::float64});
        check.dtype(whitener, {DType::float32, DType::float64});
        if (term.op == TermOp::gaussian_mixture) return read_mixture(check, mean, whitener, term, stats);
        auto found = term.per == Per::position ? read_positions(check, mean, whitener)
                                               : read_shared(check, mean, whitener, term.form);
        found->output = term.output;
        found->saturation = term.saturation;
        return found;
    }

  private:
    std::int64_t components() const { return static_cast<std::int64_t>(log_weights.size()); }

    static std::unique_ptr<Statistics> read_mixture(const Check& check, Named mean, Named whitener, const Term& term,
                                                    const NamedTensors& stats) {
        const std::string name = term.stats + ".log_weights";
        const Named log_weights = {name, find(stats, name, "statistic")};
        check.dtype(log_weights, {DType::float32, DType::float64});
        check.rank(mean, {2}, "[K,D] for a mixture");
        const std::int64_t k = mean.tensor.size(0), d = mean.tensor.size(1);
        if (k * d == 0) check.fail(mean.name, " is empty, shape ", shape_text(mean.tensor));
        check.shape(log_weights, {k}, "[K]");
        switch (term.form) {
            case Form::isotropic:
                check.shape(whitener, {k, 1}, "[K,1] for form \"isotropic\"");
                break;
            case Form::diagonal:
                check.shape(whitener, {k, d}, "[K,D] for form \"diagonal\"");
                break;
            case Form::full:
                check.shape(whitener, {k, d, d}, "[K,D,D] for form \"full\"");
                break;
        }
        auto found =
            std::make_unique<Statistics>(Statistics{copied(mean.tensor), copied(whitener.tensor), term.form, d});
        found->log_weights = copied(log_weights.tensor);
        return found;
    }

    static std::unique_ptr<Statistics> read_shared(const Check& check, Named mean, Named whitener, Form form) {
        check.rank(mean, {1}, "[D]");
        const std::int64_t d = mean.tensor.size(0);
        switch (form) {
            case Form::isotropic:
                check.shape(whitener, {1}, "[1] for form \"isotropic\"");
                break;
            case Form::diagonal:
                check.shape(whitener, {d}, "[D] for form \"diagonal\"");
                break;
            case Form::full:
                check.shape(whitener, {d, d}, "[D,D] for form \"full\"");
                break;
        }
        return std::make_unique<Statistics>(Statistics{copied(mean.tensor), copied(whitener.tensor), form, d});
    }

    static std::unique_ptr<Statistics> read_positions(const Check& check, Named mean, Named whitener) {
        check.rank(mean, {3}, "[C,H,W] for per \"position\"");
        const std::int64_t c = mean.tensor.size(0), h = mean.tensor.size(1), w = mean.tensor.size(2);
        if (c * h * w == 0) check.fail(mean.name, " is empty, shape ", shape_text(mean.tensor));
        check.rank(whitener, {3, 4}, "[H,W,C,C] or packed [H,W,C(C+1)/2] for per \"position\"");
        const bool packed = whitener.tensor.rank == 3;
        if (packed) {
            check.shape(whitener, {h, w, c * (c + 1) / 2}, "packed [H,W,C(C+1)/2]");
        } else {
            check.shape(whitener, {h, w, c, c}, "[H,W,C,C]");
        }
        return std::make_unique<Statistics>(Statistics{
            copied(mean.tensor), packed ? copied(whitener.tensor) : triangles(whitener.tensor), Form::full, c, h, w});
    }
};

Scorer::Scorer(ScoringSpec spec, const NamedTensors& stats) : spec_(std::move(spec)) {
    for (const Term& term : spec_.terms) {
        for (const std::string& name : term.of) {
            if (std::find(outputs_.begin(), outputs_.end(), name) == outputs_.end()) outputs_.push_back(name);
        }
        const bool fitted = term.op == TermOp::gaussian || term.op == TermOp::gaussian_mixture;
        statistics_.push_back(fitted ? Statistics::read(term, stats) : nullptr);
    }
}

Scorer::~Scorer() = default;
Scorer::Scorer(Scorer&&) noexcept = default;
Scorer& Scorer::operator=(Scorer&&) noexcept = default;

std::optional<double> Scorer::threshold() const {
    if (!spec_.calibration) return std::nullopt;
    return spec_.calibration->threshold;
}

std::int64_t Scorer::map_height() const {
    return spec_.map.size ? spec_.map.size->first : spec_.input.height;
}
std::int64_t Scorer::map_width() const {
    return spec_.map.size ? spec_.map.size->second : spec_.input.width;
}

NamedTensors Scorer::statistics() const {
    NamedTensors views;
    for (std::size_t t = 0; t < spec_.terms.size(); ++t) {
        if (!statistics_[t]) continue;
        const std::string& name = spec_.terms[t].stats;
        views.emplace(name + ".mean", statistics_[t]->means());
        views.emplace(name + ".whitener", statistics_[t]->whiteners());
        if (spec_.terms[t].op == TermOp::gaussian_mixture) {
            views.emplace(name + ".log_weights", statistics_[t]->weights());
        }
    }
    for (auto& view : views) view.second.read_only = true;
    return views;
}

std::int64_t Scorer::check(const NamedTensors& outputs) const {
    const std::int64_t n = find(outputs, outputs_.front(), "output").size(0);
    for (std::size_t t = 0; t < spec_.terms.size(); ++t) {
        const Term& term = spec_.terms[t];
        for (const std::string& name : term.of) check_output(t, name, find(outputs, name, "output"), n);
        if (compares_two(term.op)) {
            const std::string a = quoted_name(term.of[0]), b = quoted_name(term.of[1]);
            Check("scorer").same_shape({a, find(outputs, term.of[0], "output")},
                                       {b, find(outputs, term.of[1], "output")});
        }
    }
    return n;
}

void Scorer::check_output(std::size_t t, const std::string& name, const Tensor& output, std::int64_t images) const {
    const Check check("scorer");
    const Term& term = spec_.terms[t];
    const std::string called = quoted_name(name);
    const bool vector = !compares_two(term.op) && term.per == Per::vector;
    check.rank({called, output}, {vector ? 2 : 4}, vector ? "[N,D]" : "[N,C,H,W]");
    check.dtype({called, output}, {DType::float32});
    check.strides({called, output});
    if (output.size(0) != images) {
        check.fail(called, " has ", output.size(0), " images, ", quoted_name(outputs_.front()), " has ", images);
    }
    for (int i = 1; i < output.rank; ++i) {
        if (output.size(i) == 0) check.fail(called, " is empty, shape ", shape_text(output));
    }
    if (term.op == TermOp::stain && output.size(1) != 3) {
        check.fail(called, " has ", output.size(1), " channels, expected 3: red, green and blue");
    }
    if (term.op == TermOp::value && output.size(1) != 1) {
        check.fail(called, " has ", output.size(1), " channels, expected 1: a value for each ",
                   vector ? "picture" : "position");
    }
    if (!statistics_[t]) return;
    const Statistics& s = *statistics_[t];
    if (output.size(1) != s.channels) {
        check.fail(called, " has ", output.size(1), " channels, ", term.stats, ".mean has ", s.channels);
    }
    if (term.per == Per::position && (output.size(2) != s.height || output.size(3) != s.width)) {
        check.fail(called, " has ", output.size(2), " x ", output.size(3), " positions, ", term.stats, ".mean has ",
                   s.height, " x ", s.width);
    }
}

std::int64_t check_score(const Scorer& scorer, const NamedTensors& outputs, const Tensor& maps, const Tensor& terms,
                         const Tensor& scores) {
    const std::int64_t n = scorer.check(outputs);
    const Check check("scorer");
    check.shape({"maps", maps}, {n, scorer.map_height(), scorer.map_width()}, "[N,h,w]");
    check.shape({"terms", terms}, {n, static_cast<std::int64_t>(scorer.spec().terms.size())}, "[N,T]");
    check.shape({"scores", scores}, {n}, "[N]");
    check.dtype({"maps", maps}, {DType::float32});
    check.dtype({"terms", terms}, {DType::float64});
    check.dtype({"scores", scores}, {DType::float64});
    for (const Named& t : {Named{"maps", maps}, Named{"terms", terms}, Named{"scores", scores}}) check.output(t);
    return n;
}

void Scorer::score(const NamedTensors& outputs, const Tensor& maps, const Tensor& terms, const Tensor& scores) const {
    const std::int64_t n = check_score(*this, outputs, maps, terms, scores);
    if (n == 0) return;
    std::deque<TermMap> term_maps;
    std::vector<Tensor> maps_to_fuse;
    std::vector<double> factors;
    std::vector<double> sums(static_cast<std::size_t>(n), 0.0);
    std::vector<char> finite(static_cast<std::size_t>(n), true);  // all outputs so far
    for (std::size_t t = 0; t < spec_.terms.size(); ++t) {
        const Term& term = spec_.terms[t];
        const Tensor& judged = find(outputs, term.of[0], "output");
        const TermMap& map = term_maps.emplace_back(judged);
        if (term.op == TermOp::distance) {
            distance(judged, find(outputs, term.of[1], "output"), map.maps(), term.metric, term.window);
        } else if (term.op == TermOp::stain) {
            stain(judged, find(outputs, term.of[1], "output"), map.maps(), term.stain);
        } else if (term.op == TermOp::value) {
            take(judged, map);
        } else {
            statistics_[t]->measure(judged, map);
        }
        const double factor = term.weight / term.scale.value_or(1.0);
        maps_to_fuse.push_back(map.maps());
        factors.push_back(factor);
        std::vector<char> term_finite(static_cast<std::size_t>(n), true);
        for (const std::string& name : term.of) mark_finite(find(outputs, name, "output"), term_finite);
        const std::vector<double> pooled = pool(map.maps(), term.pool.method, term.pool.parameter);
        double* to = terms.as<double>() + static_cast<std::int64_t>(t) * terms.step(1);
        for (std::size_t i = 0; i < pooled.size(); ++i, to += terms.step(0)) {
            *to = term_finite[i] ? pooled[i] : nan;
            sums[i] += factor * *to;
            finite[i] = finite[i] && term_finite[i];
        }
    }
    fuse_and_blur(maps_to_fuse, factors, spec_, maps);
    if (spec_.pool_at == PoolAt::image) sums = pool(maps, spec_.pool->method, spec_.pool->parameter);
    for (std::size_t i = 0; i < sums.size(); ++i) {
        const double score = finite[i] && std::isfinite(sums[i]) ? sums[i] : nan;
        scores.as<double>()[static_cast<std::int64_t>(i) * scores.step(0)] = score;
    }
}

}  // namespace normscan

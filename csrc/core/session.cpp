#include "normscan/session.hpp"

#include <atomic>
#include <chrono>
#include <cmath>

#include "core/engines.hpp"
#include "core/pictures.hpp"
#include "normscan/error.hpp"
#include "ops/buffer.hpp"
#include "ops/check.hpp"

namespace normscan {
namespace {

constexpr int most_threads = 1024;

// Seconds since the last call.
class Clock {
  public:
    double lap() {
        const auto now = std::chrono::steady_clock::now();
        const double seconds = std::chrono::duration<double>(now - last_).count();
        last_ = now;
        return seconds;
    }

  private:
    std::chrono::steady_clock::time_point last_ = std::chrono::steady_clock::now();
};

std::string of_picture(std::size_t index, const std::string& what) {
    return "picture " + std::to_string(index) + ": " + what;
}

}  // namespace

struct Session::Parts {
    Bundle bundle;
    Scorer scorer;
    std::unique_ptr<Engine> engine;
    std::atomic<std::uint64_t> cancels{0};

    Parts(Bundle opened, const SessionOptions& options)
        : bundle(std::move(opened)),
          scorer(bundle.scorer()),
          engine(open_engine(bundle, options.engine, options.device, options.threads)) {}

    // Throws where cancel() was called since there were `before` such calls.
    void go_on(std::uint64_t before) const {
        if (cancels != before) throw Error(Error::Kind::cancelled, "the call was cancelled");
    }

    void prepare_all(std::span<const Picture> pictures, float* x) const;
    void restore_maps(std::span<const Picture> pictures, const Tensor& maps) const;
    void decide(std::span<const double> scores, const Times& times, std::span<Result> results) const;
};

// Hop 2: x [N,C,h,w].
void Session::Parts::prepare_all(std::span<const Picture> pictures, float* x) const {
    const InputSpec& input = bundle.spec().input;
    for (std::size_t i = 0; i < pictures.size(); ++i, x += input.channels * input.height * input.width) {
        const PictureView view(pictures[i]);
        if (const std::string wrong = view.refusal(); !wrong.empty()) {
            throw Error(Error::Kind::picture, of_picture(i, wrong));
        }
        prepare(view.tensor(), contiguous(x, {input.channels, input.height, input.width}), input.resize, input.mean,
                input.std);
    }
}

void Session::Parts::restore_maps(std::span<const Picture> pictures, const Tensor& maps) const {
    for (std::size_t i = 0; i < pictures.size(); ++i) {
        const Picture& picture = pictures[i];
        if (picture.map == nullptr) continue;
        float* const from = maps.as<float>() + static_cast<std::int64_t>(i) * maps.step(0);
        restore(contiguous(from, {maps.size(1), maps.size(2)}),
                contiguous(picture.map, {picture.height, picture.width}), bundle.spec().input.resize);
    }
}

void Session::Parts::decide(std::span<const double> scores, const Times& times, std::span<Result> results) const {
    const std::optional<double> threshold = scorer.threshold();
    for (std::size_t i = 0; i < scores.size(); ++i) {
        if (!std::isfinite(scores[i])) {
            throw Error(Error::Kind::picture,
                        of_picture(i, "the score is not a finite number, as the network's outputs"));
        }
        results[i] = {scores[i], std::nullopt, times};
        if (threshold) results[i].decision = scores[i] > *threshold;
    }
}

Session::Session(std::unique_ptr<Parts> parts) : parts_(std::move(parts)) {}
Session::~Session() = default;
Session::Session(Session&&) noexcept = default;
Session& Session::operator=(Session&&) noexcept = default;

Session Session::open(const std::string& folder, const SessionOptions& options) {
    if (options.threads < 0 || options.threads > most_threads) {
        fail("open: threads is ", options.threads, ", expected 0 (all cores) to ", most_threads);
    }
    if (options.threads > 0) set_threads(options.threads);
    return Session(std::make_unique<Parts>(Bundle::open(folder), options));
}

const ScoringSpec& Session::spec() const {
    return parts_->bundle.spec();
}
double Session::spread() const {
    return parts_->bundle.spread();
}
const std::array<double, 2>& Session::map_scale() const {
    return parts_->bundle.map_scale();
}
const std::string& Session::precision() const {
    return parts_->bundle.precision();
}
const std::string& Session::notice() const {
    return parts_->bundle.notice();
}
const char* Session::engine() const {
    return parts_->engine->name();
}
const char* Session::engine_version() const {
    return parts_->engine->version();
}

void Session::score(std::span<const Picture> pictures, std::span<Result> results) const {
    if (pictures.size() != results.size() || pictures.size() > most_pictures) {
        fail("score: ", pictures.size(), " pictures and ", results.size(), " results; expected as many, at most ",
             most_pictures);
    }
    for (std::size_t i = 0; i < pictures.size(); ++i) check_picture(pictures[i], of_picture(i, ""));
    if (pictures.empty()) return;
    const std::uint64_t cancels = parts_->cancels;
    const InputSpec& input = spec().input;
    const Scorer& scorer = parts_->scorer;
    const auto n = static_cast<std::int64_t>(pictures.size());
    Times times;
    Clock clock;

    const Buffer<float> x(n * input.channels * input.height * input.width);
    parts_->prepare_all(pictures, x.get());
    times.prepare = clock.lap();
    parts_->go_on(cancels);

    const Engine::Run run(*parts_->engine, contiguous(x.get(), {n, input.channels, input.height, input.width}));
    times.engine = clock.lap();
    parts_->go_on(cancels);

    if (const std::int64_t found = scorer.check(run.outputs()); found != n) {
        throw Error(Error::Kind::engine, std::string(engine()) + " gave outputs of " + std::to_string(found) +
                                             " pictures, expected " + std::to_string(n));
    }
    const auto terms = static_cast<std::int64_t>(spec().terms.size());
    const Buffer<float> maps(n * scorer.map_height() * scorer.map_width());
    const Buffer<double> of_terms(n * terms), scores(n);
    const Tensor all_maps = contiguous(maps.get(), {n, scorer.map_height(), scorer.map_width()});
    scorer.score(run.outputs(), all_maps, contiguous(of_terms.get(), {n, terms}), contiguous(scores.get(), {n}));
    parts_->restore_maps(pictures, all_maps);
    times.score = clock.lap();
    parts_->go_on(cancels);
    parts_->decide({scores.get(), pictures.size()}, times, results);
}

void Session::cancel() {
    ++parts_->cancels;
}

}  // namespace normscan

// The spec, from hostile text to a canonical one, and the scorer that runs it.
#include "arrays.hpp"
#include "core/json.hpp"
#include "normscan/scorer.hpp"
#include "truth.hpp"

using namespace normscan;

namespace {

const std::string text = R"({"schema": 1, "family": "test",
 "input": {"height": 19, "width": 13, "channels": 3, "resize": "fit", "mean": [0, 0.5, 1], "std": [1, 1, 1]},
 "terms": [{"op": "distance", "of": ["a", "b"], "metric": "l1", "scale": 0.5, "weight": 2},
           {"op": "gaussian", "of": ["z"], "stats": "z", "form": "full", "per": "position_shared", "pool": "max"}],
 "fuse": "sum", "pool_at": "term", "map": {"size": "input", "blur_sigma": 1.5}, "group": null})";
const std::string of_stains = R"({"schema": 1, "family": "test",
 "input": {"height": 9, "width": 7, "channels": 3, "resize": "fit", "mean": [0, 0, 0], "std": [1, 1, 1]},
 "terms": [{"op": "stain", "of": ["a", "b"], "metric": "residual", "cut": 0.1, "pool": "max"},
           {"op": "stain", "of": ["a", "b"], "metric": "red_ratio", "hue": [300, 60], "window": 5, "weight": 2}],
 "fuse": "sum", "pool_at": "term", "group": {"pool": {"topk": 0.1}, "positive": 0.5, "high": 2}})";

TEST(json_values) {
    const json::Value value = json::parse(R"( {"b": [1, -2.5e3, true, null], "a": "\u00e9\n\ud83d\ude00"} )", "text");
    CHECK(json::write(value) == "{\"a\":\"\xc3\xa9\\n\xf0\x9f\x98\x80\",\"b\":[1,-2500,true,null]}");
    const json::Value python = json::parse(R"({"b": [0.0, 1e-05, 0.0001, 1E+2], "a": "\u001f\t"})", "text");
    CHECK(json::write_as_parsed(python) == R"({"a":"\u001f\t","b":[0.0,1e-05,0.0001,1E+2]})");
    for (const char* wrong :
         {"", "{", "[1,]", "{\"a\":1,\"a\":2}", "NaN", "1 2", "\"\\ud83d\"", "01", "1e999", "tru", "\"\t\""}) {
        CHECK(check::message_of([&] { json::parse(wrong, "text"); }).find("text") != std::string::npos);
    }
    CHECK(!check::message_of([&] { json::parse(std::string(100000, '['), "text"); }).empty());
}

TEST(spec_is_canonical) {
    for (const std::string& one : {text, of_stains}) {
        const std::string once = ScoringSpec::parse(one).json();
        CHECK(ScoringSpec::parse(once).json() == once);
    }
}

// Whatever the text, there is a spec that can be written and read again, or an Error; the sanitizers watch.
TEST(spec_of_damaged_text) {
    const auto survives = [](const std::string& damaged) {
        check::message_of([&] {
            const std::string written = ScoringSpec::parse(damaged).json();
            CHECK(ScoringSpec::parse(written).json() == written);
        });
    };
    for (const std::string& whole : {text, of_stains}) {
        for (std::size_t i = 0; i < whole.size(); ++i) {
            survives(whole.substr(0, i));
            survives(whole.substr(0, i) + whole.substr(i + 1));
            for (const char c : {'\0', '"', '9', '-', '}', '[', '\\', '\xff'}) {
                std::string changed = whole;
                changed[i] = c;
                survives(changed);
            }
        }
    }
}

TEST(scorer_everywhere) {
    for (const std::int64_t images : {0, 1, 3}) {
        for (const Layout layout : layouts) {
            Array<float> a({images, 3, 19, 13}, layout), b({images, 3, 19, 13}, layout), z({images, 5, 7, 3}, layout);
            Array<float> mean({5}, layout);
            Array<double> whitener({5, 5}, layout);
            a.fill(1, 0.0), b.fill(2, 0.0), z.fill(3), mean.fill(4), whitener.fill(5);
            const Scorer scorer(ScoringSpec::parse(text), {{"z.mean", mean}, {"z.whitener", whitener}});
            Array<float> maps({images, 19, 13}, layout), distances({images, 7, 3});
            Array<double> terms({images, 2}, layout), scores({images}, layout);
            with_any_threads([&] { scorer.score({{"a", a}, {"b", b}, {"z", z}}, maps, terms, scores); }, maps, terms,
                             scores);
            // gaussian has its own truth elsewhere
            Array<float> rounded({5, 5});
            for (std::int64_t i = 0; i < 25; ++i) rounded.element(i) = static_cast<float>(whitener.element(i));
            gaussian(z, mean, rounded, distances);
            const Doubles l1 = truth::distance(a.doubles(), b.doubles(), b.doubles(), {images, 3, 19, 13}, Metric::l1);
            const Doubles d = distances.doubles();
            Doubles fused = truth::filtered(d, images, truth::bilinear(7, 19), truth::bilinear(3, 13));
            Doubles wanted_terms, wanted_scores;
            for (std::size_t i = 0; i < l1.size(); ++i) fused[i] += 4.0 * l1[i];
            for (std::size_t n = 0; n < static_cast<std::size_t>(images); ++n) {
                double sum = 0.0, largest = 0.0;
                for (std::size_t i = 0; i < 19 * 13; ++i) sum += l1[n * 19 * 13 + i];
                for (std::size_t i = 0; i < 21; ++i) largest = std::max(largest, d[n * 21 + i]);
                wanted_terms.push_back(sum / (19 * 13));
                wanted_terms.push_back(largest);
                wanted_scores.push_back(4.0 * wanted_terms[2 * n] + largest);
            }
            expect("maps", maps, truth::filtered(fused, images, truth::blur(19, 1.5), truth::blur(13, 1.5)),
                   bound<float>());
            expect("terms", terms, wanted_terms, bound<float>());
            expect("scores", scores, wanted_scores, bound<float>());
        }
    }
}

// What it holds is float32 and contiguous whatever came in, and what it makes of the same again is the same.
TEST(scorer_says_its_statistics) {
    const std::string of_places = R"({"schema": 1, "family": "test",
 "input": {"height": 5, "width": 3, "channels": 1, "resize": "fit", "mean": [0], "std": [1]},
 "terms": [{"op": "gaussian", "of": ["p"], "stats": "p", "form": "full", "per": "position"},
           {"op": "gaussian_mixture", "of": ["v"], "stats": "v", "form": "diagonal", "per": "vector"}],
 "fuse": "sum", "pool_at": "term"})";
    for (const Layout layout : layouts) {
        Array<double> mean({3, 2, 4}, layout), whitener({2, 4, 3, 3}, layout), means({2, 5}, layout);
        Array<float> whiteners({2, 5}, layout), log_weights({2}, layout);
        mean.fill(1), whitener.fill(2), means.fill(3), whiteners.fill(4), log_weights.fill(5);
        const Scorer scorer(ScoringSpec::parse(of_places), {{"p.mean", mean},
                                                            {"p.whitener", whitener},
                                                            {"v.mean", means},
                                                            {"v.whitener", whiteners},
                                                            {"v.log_weights", log_weights}});
        const NamedTensors held = scorer.statistics(), again = Scorer(scorer.spec(), held).statistics();
        CHECK(held.size() == 5 && again.size() == 5);
        CHECK(held.at("p.whitener").rank == 3 && held.at("p.whitener").size(2) == 6);
        CHECK(held.at("p.whitener").as<const float>()[1] == static_cast<float>(whitener.element(3)));
        CHECK(held.at("v.mean").as<const float>()[6] == static_cast<float>(means.element(6)));
        for (const auto& [name, one] : held) {
            CHECK(one.dtype == DType::float32 && one.read_only && one.step(one.rank - 1) == 1);
            CHECK(again.at(name).shape == one.shape);
        }
    }
}

TEST(scorer_takes_values_as_they_are) {
    const std::string of_values = R"({"schema": 1, "family": "test",
 "input": {"height": 5, "width": 3, "channels": 1, "resize": "fit", "mean": [0], "std": [1]},
 "terms": [{"op": "value", "of": ["m"], "per": "position", "pool": "max"},
           {"op": "value", "of": ["p"], "per": "vector", "weight": 2}],
 "fuse": "sum", "pool_at": "term"})";
    for (const Layout layout : layouts) {
        Array<float> m({2, 1, 5, 3}, layout), p({2, 1}, layout), maps({2, 5, 3}, layout);
        Array<double> terms({2, 2}, layout), scores({2}, layout);
        m.fill(1), p.fill(2);
        const Scorer scorer(ScoringSpec::parse(of_values), {});
        with_any_threads([&] { scorer.score({{"m", m}, {"p", p}}, maps, terms, scores); }, maps, terms, scores);
        const Doubles values = m.doubles(), chances = p.doubles();
        Doubles wanted_maps, wanted_terms, wanted_scores;
        for (std::size_t n = 0; n < 2; ++n) {
            for (std::size_t i = 0; i < 15; ++i) wanted_maps.push_back(values[n * 15 + i] + 2.0 * chances[n]);
            wanted_terms.push_back(*std::max_element(values.begin() + static_cast<std::ptrdiff_t>(n) * 15,
                                                     values.begin() + static_cast<std::ptrdiff_t>(n + 1) * 15));
            wanted_terms.push_back(chances[n]);
            wanted_scores.push_back(wanted_terms[2 * n] + 2.0 * chances[n]);
        }
        expect("maps", maps, wanted_maps, bound<float>());
        expect("terms", terms, wanted_terms, bound<float>());
        expect("scores", scores, wanted_scores, bound<float>());
    }
}

TEST(scorer_of_stains) {
    const ScoringSpec spec = ScoringSpec::parse(of_stains);
    for (const Layout layout : layouts) {
        Array<float> a({2, 3, 9, 7}, layout), b({2, 3, 9, 7}, layout), maps({2, 9, 7}, layout);
        Array<float> residual({2, 9, 7}), ratio({2, 9, 7});
        Array<double> terms({2, 2}, layout), scores({2}, layout);
        a.fill(1, 0.0), b.fill(2, 0.0);
        with_any_threads([&] { Scorer(spec, {}).score({{"a", a}, {"b", b}}, maps, terms, scores); }, maps, terms,
                         scores);
        stain(a, b, residual, spec.terms[0].stain);
        stain(a, b, ratio, spec.terms[1].stain);
        Doubles wanted_maps, wanted_scores;
        for (std::int64_t i = 0; i < 2 * 63; ++i) {
            wanted_maps.push_back(static_cast<double>(residual.element(i)) +
                                  2.0 * static_cast<double>(ratio.element(i)));
        }
        const std::vector<double> most = pool(residual, PoolMethod::max), mean = pool(ratio, PoolMethod::mean);
        for (std::size_t n = 0; n < 2; ++n) wanted_scores.push_back(most[n] + 2.0 * mean[n]);
        expect("maps", maps, wanted_maps, bound<float>());
        expect("scores", scores, wanted_scores, bound<float>());
    }
}

}  // namespace

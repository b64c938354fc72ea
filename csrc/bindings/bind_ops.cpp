// The ops: cast by DLPack, release the GIL, call. Checks are in csrc/ops.
#include <pybind11/stl.h>

#include <optional>
#include <utility>
#include <vector>

#include "bindings/attention.hpp"
#include "bindings/bindings.hpp"
#include "bindings/dlpack.hpp"
#include "bindings/levels.hpp"

namespace py = pybind11;
using namespace py::literals;

namespace normscan::bindings {
namespace {

using Object = const py::object&;

void py_gaussian(Object z, Object mean, Object whitener, Object out, const std::string& output, double saturation) {
    const auto what = choice<GaussianOutput>("gaussian", "output", gaussian_output_names, output);
    const Imported i("gaussian: z", z), m("gaussian: mean", mean), w("gaussian: whitener", whitener);
    const Imported o("gaussian: out", out);
    const py::gil_scoped_release release;
    gaussian(i, m, w, o, what, saturation);
}

void py_gaussian_backward(Object grad_out, Object z, Object mean, Object whitener, Object grad_z, Object grad_mean,
                          Object grad_whitener, const std::string& output, double saturation) {
    const auto what = choice<GaussianOutput>("gaussian_backward", "output", gaussian_output_names, output);
    const Imported g("gaussian_backward: grad_out", grad_out), i("gaussian_backward: z", z);
    const Imported m("gaussian_backward: mean", mean), w("gaussian_backward: whitener", whitener);
    const Imported gz("gaussian_backward: grad_z", grad_z), gm("gaussian_backward: grad_mean", grad_mean);
    const Imported gw("gaussian_backward: grad_whitener", grad_whitener);
    const py::gil_scoped_release release;
    gaussian_backward(g, i, m, w, gz, gm, gw, what, saturation);
}

void py_gaussian_mixture(Object z, Object means, Object whiteners, Object log_weights, Object out) {
    const Imported i("gaussian_mixture: z", z), m("gaussian_mixture: means", means);
    const Imported w("gaussian_mixture: whiteners", whiteners), l("gaussian_mixture: log_weights", log_weights);
    const Imported o("gaussian_mixture: out", out);
    const py::gil_scoped_release release;
    gaussian_mixture(i, m, w, l, o);
}

void py_gaussian_positions(Object z, Object mean, Object whitener, Object out, const std::string& output,
                           double saturation) {
    const auto what = choice<GaussianOutput>("gaussian_positions", "output", gaussian_output_names, output);
    const Imported i("gaussian_positions: z", z), m("gaussian_positions: mean", mean);
    const Imported w("gaussian_positions: whitener", whitener), o("gaussian_positions: out", out);
    const py::gil_scoped_release release;
    gaussian_positions(i, m, w, o, what, saturation);
}

void py_gaussian_positions_fit(Object z, std::int64_t count, Object mean, Object scatter) {
    const Imported i("gaussian_positions_fit: z", z), m("gaussian_positions_fit: mean", mean);
    const Imported s("gaussian_positions_fit: scatter", scatter);
    const py::gil_scoped_release release;
    gaussian_positions_fit(i, count, m, s);
}

void py_gaussian_positions_whitener(Object scatter, Object whitener, std::int64_t count, double shrinkage) {
    const Imported s("gaussian_positions_whitener: scatter", scatter);
    const Imported w("gaussian_positions_whitener: whitener", whitener);
    const py::gil_scoped_release release;
    gaussian_positions_whitener(s, w, count, shrinkage);
}

void py_distance(Object a, Object b, Object out, const std::string& metric, int window) {
    const auto how = choice<Metric>("distance", "metric", metric_names, metric);
    const Imported x("distance: a", a), y("distance: b", b), o("distance: out", out);
    const py::gil_scoped_release release;
    distance(x, y, o, how, window);
}

void py_distance_backward(Object grad_out, Object a, Object b, Object grad_a, Object grad_b, const std::string& metric,
                          int window) {
    const auto how = choice<Metric>("distance_backward", "metric", metric_names, metric);
    const Imported g("distance_backward: grad_out", grad_out), x("distance_backward: a", a);
    const Imported y("distance_backward: b", b), gx("distance_backward: grad_a", grad_a);
    const Imported gy("distance_backward: grad_b", grad_b);
    const py::gil_scoped_release release;
    distance_backward(g, x, y, gx, gy, how, window);
}

void py_distance_maps(const py::sequence& levels, Object out_map, Object out_score, const std::string& metric,
                      const std::vector<double>& weights, const std::string& fuse, double sigma,
                      const std::string& pool, double parameter) {
    const auto how = choice<Metric>("distance_maps", "metric", metric_names, metric);
    const auto fusion = choice<Fuse>("distance_maps", "fuse", fuse_names, fuse);
    const auto pooling = choice<PoolMethod>("distance_maps", "pool", pool_names, pool);
    const ImportedLevels pairs(levels);
    const Imported m("distance_maps: out_map", out_map), s("distance_maps: out_score", out_score);
    const py::gil_scoped_release release;
    distance_maps(pairs.get(), m, s, how, weights, fusion, sigma, pooling, parameter);
}

void py_attention(Object q, Object k, Object v, Object out, Object lse, Object bias, Object residual, Object gamma,
                  Object attended, double scale, const Grid& grid) {
    const AttentionCall c(q, k, v, out, lse, bias, residual, gamma, attended, grid);
    const py::gil_scoped_release release;
    attention(c.q, c.k, c.v, c.out, c.lse, scale, pointer(c.bias), pointer(c.gate));
}

void py_attention_backward(Object grad_out, Object q, Object k, Object v, Object out, Object lse, Object grad_q,
                           Object grad_k, Object grad_v, Object bias, Object grad_bias, Object gamma, Object grad_gamma,
                           double scale, const Grid& grid) {
    const AttentionBackwardCall c(grad_out, q, k, v, out, lse, grad_q, grad_k, grad_v, bias, grad_bias, gamma,
                                  grad_gamma, grid);
    const py::gil_scoped_release release;
    attention_backward(c.grad_out, c.q, c.k, c.v, c.out, c.lse, c.grad_q, c.grad_k, c.grad_v, scale, pointer(c.bias),
                       c.grad_bias.get(), pointer(c.gate));
}

void py_stain(Object a, Object b, Object out, const std::string& metric, double cut, const std::vector<double>& hue,
              double least_saturation, std::optional<int> window) {
    const Stain how = stain_of(metric, cut, hue, least_saturation, window);
    const Imported x("stain: a", a), y("stain: b", b), o("stain: out", out);
    const py::gil_scoped_release release;
    stain(x, y, o, how);
}

void py_resample(Object map, Object out) {
    const Imported m("resample: map", map), o("resample: out", out);
    const py::gil_scoped_release release;
    resample(m, o);
}

void py_smooth(Object map, Object out, double sigma) {
    const Imported m("smooth: map", map), o("smooth: out", out);
    const py::gil_scoped_release release;
    smooth(m, o, sigma);
}

void py_pool(Object map, Object out, const std::string& method, double parameter) {
    const auto how = choice<PoolMethod>("pool", "method", pool_names, method);
    const Imported m("pool: map", map), o("pool: out", out);
    const py::gil_scoped_release release;
    pool(m, o, how, parameter);
}

}  // namespace

void bind_ops(py::module_& module) {
    module.def("gaussian", &py_gaussian, "z"_a, "mean"_a, "whitener"_a, "out"_a, py::kw_only(),
               "output"_a = "squared_distance", "saturation"_a = 1.0);
    module.def("gaussian_backward", &py_gaussian_backward, "grad_out"_a, "z"_a, "mean"_a, "whitener"_a, "grad_z"_a,
               "grad_mean"_a, "grad_whitener"_a, py::kw_only(), "output"_a = "squared_distance", "saturation"_a = 1.0);
    module.def("gaussian_mixture", &py_gaussian_mixture, "z"_a, "means"_a, "whiteners"_a, "log_weights"_a, "out"_a);
    module.def("gaussian_positions", &py_gaussian_positions, "z"_a, "mean"_a, "whitener"_a, "out"_a, py::kw_only(),
               "output"_a = "squared_distance", "saturation"_a = 1.0);
    module.def("gaussian_positions_fit", &py_gaussian_positions_fit, "z"_a, "count"_a, "mean"_a, "scatter"_a);
    module.def("gaussian_positions_whitener", &py_gaussian_positions_whitener, "scatter"_a, "whitener"_a, py::kw_only(),
               "count"_a, "shrinkage"_a);
    module.def("distance", &py_distance, "a"_a, "b"_a, "out"_a, py::kw_only(), "metric"_a, "window"_a = 11);
    module.def("distance_backward", &py_distance_backward, "grad_out"_a, "a"_a, "b"_a, "grad_a"_a, "grad_b"_a,
               py::kw_only(), "metric"_a, "window"_a = 11);
    module.def("distance_maps", &py_distance_maps, "levels"_a, "out_map"_a, "out_score"_a, py::kw_only(), "metric"_a,
               "weights"_a, "fuse"_a, "sigma"_a, "pool"_a, "parameter"_a = 0.0);
    module.def("stain", &py_stain, "a"_a, "b"_a, "out"_a, py::kw_only(), "metric"_a, "cut"_a = Stain{}.cut,
               "hue"_a = Stain{}.hue, "least_saturation"_a = Stain{}.least_saturation, "window"_a = py::none());
    module.def("attention", &py_attention, "q"_a, "k"_a, "v"_a, "out"_a, "lse"_a, "bias"_a = py::none(),
               "residual"_a = py::none(), "gamma"_a = py::none(), "attended"_a = py::none(), py::kw_only(), "scale"_a,
               "grid"_a = py::none());
    module.def("attention_backward", &py_attention_backward, "grad_out"_a, "q"_a, "k"_a, "v"_a, "out"_a, "lse"_a,
               "grad_q"_a, "grad_k"_a, "grad_v"_a, "bias"_a = py::none(), "grad_bias"_a = py::none(),
               "gamma"_a = py::none(), "grad_gamma"_a = py::none(), py::kw_only(), "scale"_a, "grid"_a = py::none());
    module.def("resample", &py_resample, "map"_a, "out"_a);
    module.def("smooth", &py_smooth, "map"_a, "out"_a, py::kw_only(), "sigma"_a);
    module.def("pool", &py_pool, "map"_a, "out"_a, py::kw_only(), "method"_a, "parameter"_a = 0.0);
}

}  // namespace normscan::bindings

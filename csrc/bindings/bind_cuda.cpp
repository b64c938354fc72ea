// Stream: the ops on a GPU, with the names and arguments of the CPU's. Checks are in csrc/ops. `<op>_workspace` takes
// what the op takes, and looks at no more than the size depends on: what is wrong with the rest, the op says. Scorer,
// which a stream's score takes; View, a tensor by its address.
#include <pybind11/numpy.h>
#include <pybind11/stl.h>

#include <memory>
#include <vector>

#include "bindings/attention.hpp"
#include "bindings/bindings.hpp"
#include "bindings/dlpack.hpp"
#include "bindings/levels.hpp"
#include "bindings/named.hpp"
#include "normscan/cuda.hpp"
#include "ops/check.hpp"

namespace py = pybind11;
using namespace py::literals;

namespace normscan::bindings {
namespace {

using Object = const py::object&;

// As _native's, but from the text of a spec: a class of this module, so that neither needs the other's.
class PyScorer {
  public:
    PyScorer(const std::string& spec, Object stats)
        : scorer_(ScoringSpec::parse(spec), ImportedDict("scorer: statistic", stats, nullptr).tensors()) {
        for (const auto& held : scorer_.statistics()) names_.push_back(held.first);
    }
    const Scorer& get() const { return scorer_; }
    const std::vector<std::string>& statistic_names() const { return names_; }

    py::dict statistics() const {
        py::dict copies;
        for (const auto& [name, held] : scorer_.statistics()) {
            copies[py::str(name)] = py::array_t<float>(
                std::vector<py::ssize_t>(held.shape.begin(), held.shape.begin() + held.rank), held.as<const float>());
        }
        return copies;
    }

  private:
    Scorer scorer_;
    std::vector<std::string> names_;
};

constexpr std::array<std::string_view, 4> view_dtype_names = {"float32", "float64", "uint8", "uint16"};

View make_view(std::uintptr_t address, const std::vector<std::int64_t>& shape, const std::string& dtype) {
    constexpr std::array<std::uintptr_t, view_dtype_names.size()> bytes = {4, 8, 1, 2};
    const Check check("View");
    Tensor t;
    t.dtype = choice<DType>("View", "dtype", view_dtype_names, dtype);
    const std::uintptr_t element = bytes[static_cast<std::size_t>(t.dtype)];
    if (address % element != 0) check.fail("address is ", address, ", expected a multiple of ", element);
    if (shape.size() > Tensor::max_rank) {
        check.fail("shape has ", shape.size(), " dimensions, expected at most ", Tensor::max_rank);
    }
    t.data = reinterpret_cast<void*>(address);
    t.rank = static_cast<int>(shape.size());
    std::copy(shape.begin(), shape.end(), t.shape.begin());
    std::int64_t stride = 1;
    for (std::size_t i = shape.size(); i-- > 0;) {
        constexpr std::int64_t most = std::int64_t{1} << 56;
        if (shape[i] < 0) check.fail("shape is ", shape_text(t), ", expected sizes of 0 or more");
        if (shape[i] > most / stride) check.fail("shape is ", shape_text(t), ", more than a memory can have");
        t.stride[i] = shape[i] > 1 ? stride : 1;
        stride *= std::max<std::int64_t>(1, shape[i]);
    }
    return {t};
}

// A CUDA stream of the caller's (its handle as an integer, 0: the legacy default stream) and the device it belongs to.
class PyStream {
  public:
    PyStream(std::intptr_t handle, int device) : stream_{reinterpret_cast<void*>(handle), device} {}

    void prepare(Object image, Object out, const std::string& resize, const std::vector<double>& mean,
                 const std::vector<double>& std) const {
        const auto how = choice<Resize>("prepare", "resize", resize_names, resize);
        const Imported i("prepare: image", image, device()), o("prepare: out", out, device());
        const py::gil_scoped_release release;
        cuda::prepare(stream_, i, o, how, mean, std);
    }
    void restore(Object map, Object out, const std::string& resize) const {
        const auto how = choice<Resize>("restore", "resize", resize_names, resize);
        const Imported m("restore: map", map, device()), o("restore: out", out, device());
        const py::gil_scoped_release release;
        cuda::restore(stream_, m, o, how);
    }

    std::int64_t gaussian_workspace(Object z, Object, Object whitener, Object, const std::string&, double, bool) const {
        const Imported i("gaussian: z", z, device()), w("gaussian: whitener", whitener, device());
        return cuda::gaussian_workspace(i, w);
    }
    void gaussian(Object z, Object mean, Object whitener, Object out, Object workspace, const std::string& output,
                  double saturation, bool allow_tf32) const {
        const auto what = choice<GaussianOutput>("gaussian", "output", gaussian_output_names, output);
        const Imported i("gaussian: z", z, device()), m("gaussian: mean", mean, device());
        const Imported w("gaussian: whitener", whitener, device()), o("gaussian: out", out, device());
        const Imported s("gaussian: workspace", workspace, device());
        const py::gil_scoped_release release;
        cuda::gaussian(stream_, i, m, w, o, s, what, saturation, allow_tf32);
    }

    std::int64_t gaussian_backward_workspace(Object, Object z, Object, Object whitener, Object, Object, Object,
                                             const std::string&, double, bool) const {
        const Imported i("gaussian_backward: z", z, device());
        const Imported w("gaussian_backward: whitener", whitener, device());
        return cuda::gaussian_backward_workspace(i, w);
    }
    void gaussian_backward(Object grad_out, Object z, Object mean, Object whitener, Object grad_z, Object grad_mean,
                           Object grad_whitener, Object workspace, const std::string& output, double saturation,
                           bool allow_tf32) const {
        const auto what = choice<GaussianOutput>("gaussian_backward", "output", gaussian_output_names, output);
        const Imported g("gaussian_backward: grad_out", grad_out, device());
        const Imported i("gaussian_backward: z", z, device()), m("gaussian_backward: mean", mean, device());
        const Imported w("gaussian_backward: whitener", whitener, device());
        const Imported gz("gaussian_backward: grad_z", grad_z, device());
        const Imported gm("gaussian_backward: grad_mean", grad_mean, device());
        const Imported gw("gaussian_backward: grad_whitener", grad_whitener, device());
        const Imported s("gaussian_backward: workspace", workspace, device());
        const py::gil_scoped_release release;
        cuda::gaussian_backward(stream_, g, i, m, w, gz, gm, gw, s, what, saturation, allow_tf32);
    }

    std::int64_t gaussian_mixture_workspace(Object z, Object, Object whiteners, Object, Object, bool) const {
        const Imported i("gaussian_mixture: z", z, device()), w("gaussian_mixture: whiteners", whiteners, device());
        return cuda::gaussian_mixture_workspace(i, w);
    }
    void gaussian_mixture(Object z, Object means, Object whiteners, Object log_weights, Object out, Object workspace,
                          bool allow_tf32) const {
        const Imported i("gaussian_mixture: z", z, device()), m("gaussian_mixture: means", means, device());
        const Imported w("gaussian_mixture: whiteners", whiteners, device());
        const Imported l("gaussian_mixture: log_weights", log_weights, device());
        const Imported o("gaussian_mixture: out", out, device());
        const Imported s("gaussian_mixture: workspace", workspace, device());
        const py::gil_scoped_release release;
        cuda::gaussian_mixture(stream_, i, m, w, l, o, s, allow_tf32);
    }

    void gaussian_positions(Object z, Object mean, Object whitener, Object out, const std::string& output,
                            double saturation) const {
        const auto what = choice<GaussianOutput>("gaussian_positions", "output", gaussian_output_names, output);
        const Imported i("gaussian_positions: z", z, device()), m("gaussian_positions: mean", mean, device());
        const Imported w("gaussian_positions: whitener", whitener, device());
        const Imported o("gaussian_positions: out", out, device());
        const py::gil_scoped_release release;
        cuda::gaussian_positions(stream_, i, m, w, o, what, saturation);
    }

    std::int64_t distance_workspace(Object, Object b, Object, const std::string& metric, int) const {
        const auto how = choice<Metric>("distance", "metric", metric_names, metric);
        return cuda::distance_workspace(Imported("distance: b", b, device()), how);
    }
    void distance(Object a, Object b, Object out, Object workspace, const std::string& metric, int window) const {
        const auto how = choice<Metric>("distance", "metric", metric_names, metric);
        const Imported x("distance: a", a, device()), y("distance: b", b, device());
        const Imported o("distance: out", out, device()), w("distance: workspace", workspace, device());
        const py::gil_scoped_release release;
        cuda::distance(stream_, x, y, o, w, how, window);
    }

    std::int64_t distance_backward_workspace(Object, Object, Object b, Object, Object, const std::string& metric,
                                             int) const {
        const auto how = choice<Metric>("distance_backward", "metric", metric_names, metric);
        return cuda::distance_backward_workspace(Imported("distance_backward: b", b, device()), how);
    }
    void distance_backward(Object grad_out, Object a, Object b, Object grad_a, Object grad_b, Object workspace,
                           const std::string& metric, int window) const {
        const auto how = choice<Metric>("distance_backward", "metric", metric_names, metric);
        const Imported g("distance_backward: grad_out", grad_out, device()), x("distance_backward: a", a, device());
        const Imported y("distance_backward: b", b, device()), gx("distance_backward: grad_a", grad_a, device());
        const Imported gy("distance_backward: grad_b", grad_b, device());
        const Imported w("distance_backward: workspace", workspace, device());
        const py::gil_scoped_release release;
        cuda::distance_backward(stream_, g, x, y, gx, gy, w, how, window);
    }

    std::int64_t stain_workspace(Object a, Object, Object, const std::string& metric, double,
                                 const std::vector<double>&, double, std::optional<int>) const {
        const auto how = choice<StainMetric>("stain", "metric", stain_metric_names, metric);
        return cuda::stain_workspace(Imported("stain: a", a, device()), how);
    }
    void stain(Object a, Object b, Object out, Object workspace, const std::string& metric, double cut,
               const std::vector<double>& hue, double least_saturation, std::optional<int> window) const {
        const Stain how = stain_of(metric, cut, hue, least_saturation, window);
        const Imported x("stain: a", a, device()), y("stain: b", b, device());
        const Imported o("stain: out", out, device()), w("stain: workspace", workspace, device());
        const py::gil_scoped_release release;
        cuda::stain(stream_, x, y, o, w, how);
    }

    std::int64_t distance_maps_workspace(const py::sequence& levels, Object out_map, Object, const std::string& metric,
                                         const std::vector<double>&, const std::string&, double sigma,
                                         const std::string& pool, double) const {
        const auto how = choice<Metric>("distance_maps", "metric", metric_names, metric);
        const auto pooling = choice<PoolMethod>("distance_maps", "pool", pool_names, pool);
        const ImportedLevels pairs(levels, device());
        const Imported m("distance_maps: out_map", out_map, device());
        return cuda::distance_maps_workspace(pairs.get(), m, how, sigma, pooling);
    }
    void distance_maps(const py::sequence& levels, Object out_map, Object out_score, Object workspace,
                       const std::string& metric, const std::vector<double>& weights, const std::string& fuse,
                       double sigma, const std::string& pool, double parameter) const {
        const auto how = choice<Metric>("distance_maps", "metric", metric_names, metric);
        const auto fusion = choice<Fuse>("distance_maps", "fuse", fuse_names, fuse);
        const auto pooling = choice<PoolMethod>("distance_maps", "pool", pool_names, pool);
        const ImportedLevels pairs(levels, device());
        const Imported m("distance_maps: out_map", out_map, device());
        const Imported s("distance_maps: out_score", out_score, device());
        const Imported w("distance_maps: workspace", workspace, device());
        const py::gil_scoped_release release;
        cuda::distance_maps(stream_, pairs.get(), m, s, w, how, weights, fusion, sigma, pooling, parameter);
    }

    void attention(Object q, Object k, Object v, Object out, Object lse, Object bias, Object residual, Object gamma,
                   Object attended, double scale, const Grid& grid, bool allow_tf32) const {
        const AttentionCall c(q, k, v, out, lse, bias, residual, gamma, attended, grid, device());
        const py::gil_scoped_release release;
        cuda::attention(stream_, c.q, c.k, c.v, c.out, c.lse, scale, pointer(c.bias), pointer(c.gate), allow_tf32);
    }

    std::int64_t attention_backward_workspace(Object, Object q, Object, Object, Object, Object, Object, Object, Object,
                                              Object bias, Object, Object, Object, double, const Grid& grid,
                                              bool) const {
        const Imported queries("attention_backward: q", q, device());
        const Optional table("attention_backward: bias", bias, device());
        return cuda::attention_backward_workspace(queries, pointer(grid_bias("attention_backward", table.get(), grid)));
    }
    void attention_backward(Object grad_out, Object q, Object k, Object v, Object out, Object lse, Object grad_q,
                            Object grad_k, Object grad_v, Object bias, Object grad_bias, Object gamma,
                            Object grad_gamma, Object workspace, double scale, const Grid& grid,
                            bool allow_tf32) const {
        const AttentionBackwardCall c(grad_out, q, k, v, out, lse, grad_q, grad_k, grad_v, bias, grad_bias, gamma,
                                      grad_gamma, grid, device());
        const Imported w("attention_backward: workspace", workspace, device());
        const py::gil_scoped_release release;
        cuda::attention_backward(stream_, c.grad_out, c.q, c.k, c.v, c.out, c.lse, c.grad_q, c.grad_k, c.grad_v, w,
                                 scale, pointer(c.bias), c.grad_bias.get(), pointer(c.gate), allow_tf32);
    }

    void resample(Object map, Object out) const {
        const Imported m("resample: map", map, device()), o("resample: out", out, device());
        const py::gil_scoped_release release;
        cuda::resample(stream_, m, o);
    }

    std::int64_t smooth_workspace(Object map, Object, double) const {
        return cuda::smooth_workspace(Imported("smooth: map", map, device()));
    }
    void smooth(Object map, Object out, Object workspace, double sigma) const {
        const Imported m("smooth: map", map, device()), o("smooth: out", out, device());
        const Imported w("smooth: workspace", workspace, device());
        const py::gil_scoped_release release;
        cuda::smooth(stream_, m, o, w, sigma);
    }

    std::int64_t pool_workspace(Object map, Object, const std::string& method, double) const {
        const auto how = choice<PoolMethod>("pool", "method", pool_names, method);
        return cuda::pool_workspace(Imported("pool: map", map, device()), how);
    }
    void pool(Object map, Object out, Object workspace, const std::string& method, double parameter) const {
        const auto how = choice<PoolMethod>("pool", "method", pool_names, method);
        const Imported m("pool: map", map, device()), o("pool: out", out, device());
        const Imported w("pool: workspace", workspace, device());
        const py::gil_scoped_release release;
        cuda::pool(stream_, m, o, w, how, parameter);
    }

    std::int64_t score_workspace(const PyScorer& scorer, Object outputs) const {
        const ImportedDict o("scorer: output", outputs, &scorer.get().outputs(), device());
        return cuda::score_workspace(scorer.get(), o.tensors());
    }
    void score(const PyScorer& scorer, Object statistics, Object outputs, Object maps, Object terms, Object scores,
               Object workspace) const {
        const ImportedDict held("scorer: statistic", statistics, &scorer.statistic_names(), device());
        const ImportedDict o("scorer: output", outputs, &scorer.get().outputs(), device());
        const Imported m("scorer: maps", maps, device()), t("scorer: terms", terms, device());
        const Imported s("scorer: scores", scores, device()), w("scorer: workspace", workspace, device());
        const py::gil_scoped_release release;
        cuda::score(stream_, scorer.get(), held.tensors(), o.tensors(), m, t, s, w);
    }

  private:
#ifdef NORMSCAN_EMULATED_CUDA  // the kernels as C++ over the CPU's memory: tests/cuda_emulation
    Device device() const { return {}; }
#else
    Device device() const { return {true, stream_.device, reinterpret_cast<std::intptr_t>(stream_.handle)}; }
#endif
    cuda::Stream stream_;
};

}  // namespace

void bind_cuda(py::module_& module) {
    py::class_<View>(module, "View", py::module_local()).def(py::init(&make_view), "address"_a, "shape"_a, "dtype"_a);
    py::class_<PyScorer>(module, "Scorer")
        .def(py::init<const std::string&, const py::object&>(), "spec"_a, "stats"_a)
        .def("statistics", &PyScorer::statistics);
    py::class_<PyStream>(module, "Stream")
        .def(py::init<std::intptr_t, int>(), "handle"_a, py::kw_only(), "device"_a = 0)
        .def("prepare", &PyStream::prepare, "image"_a, "out"_a, py::kw_only(), "resize"_a, "mean"_a, "std"_a)
        .def("restore", &PyStream::restore, "map"_a, "out"_a, py::kw_only(), "resize"_a)
        .def("gaussian_workspace", &PyStream::gaussian_workspace, "z"_a, "mean"_a, "whitener"_a, "out"_a, py::kw_only(),
             "output"_a = "squared_distance", "saturation"_a = 1.0, "allow_tf32"_a = false)
        .def("gaussian", &PyStream::gaussian, "z"_a, "mean"_a, "whitener"_a, "out"_a, py::kw_only(), "workspace"_a,
             "output"_a = "squared_distance", "saturation"_a = 1.0, "allow_tf32"_a = false)
        .def("gaussian_backward_workspace", &PyStream::gaussian_backward_workspace, "grad_out"_a, "z"_a, "mean"_a,
             "whitener"_a, "grad_z"_a, "grad_mean"_a, "grad_whitener"_a, py::kw_only(), "output"_a = "squared_distance",
             "saturation"_a = 1.0, "allow_tf32"_a = false)
        .def("gaussian_backward", &PyStream::gaussian_backward, "grad_out"_a, "z"_a, "mean"_a, "whitener"_a, "grad_z"_a,
             "grad_mean"_a, "grad_whitener"_a, py::kw_only(), "workspace"_a, "output"_a = "squared_distance",
             "saturation"_a = 1.0, "allow_tf32"_a = false)
        .def("gaussian_mixture_workspace", &PyStream::gaussian_mixture_workspace, "z"_a, "means"_a, "whiteners"_a,
             "log_weights"_a, "out"_a, py::kw_only(), "allow_tf32"_a = false)
        .def("gaussian_mixture", &PyStream::gaussian_mixture, "z"_a, "means"_a, "whiteners"_a, "log_weights"_a, "out"_a,
             py::kw_only(), "workspace"_a, "allow_tf32"_a = false)
        .def("gaussian_positions", &PyStream::gaussian_positions, "z"_a, "mean"_a, "whitener"_a, "out"_a, py::kw_only(),
             "output"_a = "squared_distance", "saturation"_a = 1.0)
        .def("distance_workspace", &PyStream::distance_workspace, "a"_a, "b"_a, "out"_a, py::kw_only(), "metric"_a,
             "window"_a = 11)
        .def("distance", &PyStream::distance, "a"_a, "b"_a, "out"_a, py::kw_only(), "workspace"_a, "metric"_a,
             "window"_a = 11)
        .def("distance_backward_workspace", &PyStream::distance_backward_workspace, "grad_out"_a, "a"_a, "b"_a,
             "grad_a"_a, "grad_b"_a, py::kw_only(), "metric"_a, "window"_a = 11)
        .def("distance_backward", &PyStream::distance_backward, "grad_out"_a, "a"_a, "b"_a, "grad_a"_a, "grad_b"_a,
             py::kw_only(), "workspace"_a, "metric"_a, "window"_a = 11)
        .def("distance_maps_workspace", &PyStream::distance_maps_workspace, "levels"_a, "out_map"_a, "out_score"_a,
             py::kw_only(), "metric"_a, "weights"_a, "fuse"_a, "sigma"_a, "pool"_a, "parameter"_a = 0.0)
        .def("distance_maps", &PyStream::distance_maps, "levels"_a, "out_map"_a, "out_score"_a, py::kw_only(),
             "workspace"_a, "metric"_a, "weights"_a, "fuse"_a, "sigma"_a, "pool"_a, "parameter"_a = 0.0)
        .def("attention", &PyStream::attention, "q"_a, "k"_a, "v"_a, "out"_a, "lse"_a, "bias"_a = py::none(),
             "residual"_a = py::none(), "gamma"_a = py::none(), "attended"_a = py::none(), py::kw_only(), "scale"_a,
             "grid"_a = py::none(), "allow_tf32"_a = false)
        .def("attention_backward_workspace", &PyStream::attention_backward_workspace, "grad_out"_a, "q"_a, "k"_a, "v"_a,
             "out"_a, "lse"_a, "grad_q"_a, "grad_k"_a, "grad_v"_a, "bias"_a = py::none(), "grad_bias"_a = py::none(),
             "gamma"_a = py::none(), "grad_gamma"_a = py::none(), py::kw_only(), "scale"_a, "grid"_a = py::none(),
             "allow_tf32"_a = false)
        .def("attention_backward", &PyStream::attention_backward, "grad_out"_a, "q"_a, "k"_a, "v"_a, "out"_a, "lse"_a,
             "grad_q"_a, "grad_k"_a, "grad_v"_a, "bias"_a = py::none(), "grad_bias"_a = py::none(),
             "gamma"_a = py::none(), "grad_gamma"_a = py::none(), py::kw_only(), "workspace"_a, "scale"_a,
             "grid"_a = py::none(), "allow_tf32"_a = false)
        .def("stain_workspace", &PyStream::stain_workspace, "a"_a, "b"_a, "out"_a, py::kw_only(), "metric"_a,
             "cut"_a = Stain{}.cut, "hue"_a = Stain{}.hue, "least_saturation"_a = Stain{}.least_saturation,
             "window"_a = py::none())
        .def("stain", &PyStream::stain, "a"_a, "b"_a, "out"_a, py::kw_only(), "workspace"_a, "metric"_a,
             "cut"_a = Stain{}.cut, "hue"_a = Stain{}.hue, "least_saturation"_a = Stain{}.least_saturation,
             "window"_a = py::none())
        .def("resample", &PyStream::resample, "map"_a, "out"_a)
        .def("smooth_workspace", &PyStream::smooth_workspace, "map"_a, "out"_a, py::kw_only(), "sigma"_a)
        .def("smooth", &PyStream::smooth, "map"_a, "out"_a, py::kw_only(), "workspace"_a, "sigma"_a)
        .def("pool_workspace", &PyStream::pool_workspace, "map"_a, "out"_a, py::kw_only(), "method"_a,
             "parameter"_a = 0.0)
        .def("pool", &PyStream::pool, "map"_a, "out"_a, py::kw_only(), "workspace"_a, "method"_a, "parameter"_a = 0.0)
        .def("score_workspace", &PyStream::score_workspace, "scorer"_a, "outputs"_a)
        .def("score", &PyStream::score, "scorer"_a, "statistics"_a, "outputs"_a, "maps"_a, "terms"_a, "scores"_a,
             py::kw_only(), "workspace"_a);
}

}  // namespace normscan::bindings

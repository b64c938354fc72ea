// Stream: the ops on a GPU, with the names and arguments of the CPU's. Checks are in csrc/ops.
#include <pybind11/stl.h>

#include <vector>

#include "bindings/bindings.hpp"
#include "bindings/dlpack.hpp"
#include "normscan/cuda.hpp"

namespace py = pybind11;
using namespace py::literals;

namespace normscan::bindings {
namespace {

using Object = const py::object&;
using Shape = std::vector<std::int64_t>;

// A CUDA stream of the caller's (its handle as an integer, 0: the legacy default stream) and the device it belongs to.
class PyStream {
  public:
    PyStream(std::intptr_t handle, int device) : stream_{reinterpret_cast<void*>(handle), device} {}

    void resample(Object map, Object out) const {
        const Imported m("resample: map", map, device()), o("resample: out", out, device());
        const py::gil_scoped_release release;
        cuda::resample(stream_, m, o);
    }

    static std::int64_t gaussian_workspace(const Shape& z, const Shape& whitener, std::int64_t itemsize) {
        return cuda::gaussian_workspace(z, whitener, itemsize);
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

    static std::int64_t gaussian_backward_workspace(const Shape& z, const Shape& whitener, std::int64_t itemsize) {
        return cuda::gaussian_backward_workspace(z, whitener, itemsize);
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

    static std::int64_t gaussian_mixture_workspace(const Shape& z, const Shape& whiteners, std::int64_t itemsize) {
        return cuda::gaussian_mixture_workspace(z, whiteners, itemsize);
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
    py::class_<PyStream>(module, "Stream")
        .def(py::init<std::intptr_t, int>(), "handle"_a, py::kw_only(), "device"_a = 0)
        .def("resample", &PyStream::resample, "map"_a, "out"_a)
        .def_static("gaussian_workspace", &PyStream::gaussian_workspace, "z"_a, "whitener"_a, "itemsize"_a)
        .def("gaussian", &PyStream::gaussian, "z"_a, "mean"_a, "whitener"_a, "out"_a, py::kw_only(), "workspace"_a,
             "output"_a = "squared_distance", "saturation"_a = 1.0, "allow_tf32"_a = false)
        .def_static("gaussian_backward_workspace", &PyStream::gaussian_backward_workspace, "z"_a, "whitener"_a,
                    "itemsize"_a)
        .def("gaussian_backward", &PyStream::gaussian_backward, "grad_out"_a, "z"_a, "mean"_a, "whitener"_a, "grad_z"_a,
             "grad_mean"_a, "grad_whitener"_a, py::kw_only(), "workspace"_a, "output"_a = "squared_distance",
             "saturation"_a = 1.0, "allow_tf32"_a = false)
        .def_static("gaussian_mixture_workspace", &PyStream::gaussian_mixture_workspace, "z"_a, "whiteners"_a,
                    "itemsize"_a)
        .def("gaussian_mixture", &PyStream::gaussian_mixture, "z"_a, "means"_a, "whiteners"_a, "log_weights"_a, "out"_a,
             py::kw_only(), "workspace"_a, "allow_tf32"_a = false)
        .def("gaussian_positions", &PyStream::gaussian_positions, "z"_a, "mean"_a, "whitener"_a, "out"_a, py::kw_only(),
             "output"_a = "squared_distance", "saturation"_a = 1.0);
}

}  // namespace normscan::bindings

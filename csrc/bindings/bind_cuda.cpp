// Stream: the ops on a GPU, with the names and arguments of the CPU's. Checks are in csrc/ops.
#include "bindings/attention.hpp"
#include "bindings/bindings.hpp"
#include "bindings/dlpack.hpp"
#include "normscan/cuda.hpp"

namespace py = pybind11;
using namespace py::literals;

namespace normscan::bindings {
namespace {

using Object = const py::object&;

// A CUDA stream of the caller's (its handle as an integer, 0: the legacy default stream) and the device it belongs to.
class PyStream {
  public:
    PyStream(std::intptr_t handle, int device) : stream_{reinterpret_cast<void*>(handle), device} {}

    void resample(Object map, Object out) const {
        const Imported m("resample: map", map, device()), o("resample: out", out, device());
        const py::gil_scoped_release release;
        cuda::resample(stream_, m, o);
    }

    void attention(Object q, Object k, Object v, Object out, Object lse, Object bias, Object residual, Object gamma,
                   Object attended, double scale, const Grid& grid, bool allow_tf32) const {
        const AttentionCall c(q, k, v, out, lse, bias, residual, gamma, attended, grid, device());
        const py::gil_scoped_release release;
        cuda::attention(stream_, c.q, c.k, c.v, c.out, c.lse, scale, pointer(c.bias), pointer(c.gate), allow_tf32);
    }

    void attention_backward(Object grad_out, Object q, Object k, Object v, Object out, Object lse, Object grad_q,
                            Object grad_k, Object grad_v, Object bias, Object grad_bias, Object gamma,
                            Object grad_gamma, double scale, const Grid& grid, bool allow_tf32,
                            Object workspace) const {
        const AttentionBackwardCall c(grad_out, q, k, v, out, lse, grad_q, grad_k, grad_v, bias, grad_bias, gamma,
                                      grad_gamma, grid, device());
        const Imported room("attention_backward: workspace", workspace, device());
        const py::gil_scoped_release release;
        cuda::attention_backward(stream_, c.grad_out, c.q, c.k, c.v, c.out, c.lse, c.grad_q, c.grad_k, c.grad_v, room,
                                 scale, pointer(c.bias), c.grad_bias.get(), pointer(c.gate), allow_tf32);
    }

    std::int64_t attention_backward_workspace(Object q, const Grid& grid) const {
        const Imported queries("attention_backward_workspace: q", q, device());
        const auto [height, width] = grid.value_or(std::pair<std::int64_t, std::int64_t>{0, 0});
        return cuda::attention_backward_workspace(queries, height, width);
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
        .def("attention", &PyStream::attention, "q"_a, "k"_a, "v"_a, "out"_a, "lse"_a, "bias"_a = py::none(),
             "residual"_a = py::none(), "gamma"_a = py::none(), "attended"_a = py::none(), py::kw_only(), "scale"_a,
             "grid"_a = py::none(), "allow_tf32"_a = false)
        .def("attention_backward", &PyStream::attention_backward, "grad_out"_a, "q"_a, "k"_a, "v"_a, "out"_a, "lse"_a,
             "grad_q"_a, "grad_k"_a, "grad_v"_a, "bias"_a = py::none(), "grad_bias"_a = py::none(),
             "gamma"_a = py::none(), "grad_gamma"_a = py::none(), py::kw_only(), "scale"_a, "grid"_a = py::none(),
             "allow_tf32"_a = false, "workspace"_a)
        .def("attention_backward_workspace", &PyStream::attention_backward_workspace, "q"_a, py::kw_only(),
             "grid"_a = py::none())
        .def("resample", &PyStream::resample, "map"_a, "out"_a);
}

}  // namespace normscan::bindings

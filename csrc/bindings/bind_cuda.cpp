// Stream: the ops on a GPU, with the names and arguments of the CPU's. Checks are in csrc/ops.
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
        .def("resample", &PyStream::resample, "map"_a, "out"_a);
}

}  // namespace normscan::bindings

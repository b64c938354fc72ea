#include "bindings/dlpack.hpp"

#include <algorithm>
#include <string>

#include "bindings/dlpack_abi.hpp"
#include "normscan/error.hpp"

namespace py = pybind11;

namespace normscan::bindings {
namespace {

[[noreturn]] void fail(std::string_view name, const std::string& text) {
    throw Error(Error::Kind::argument, std::string(name) + ": " + text);
}

std::string type_name(const py::object& object) {
    return py::str(py::type::of(object).attr("__name__"));
}

// Asked for before the export, since exporting from a GPU already needs its stream.
void check_device(std::string_view name, const py::object& array, const Device& wanted) {
    std::int32_t type = 0, index = 0;
    try {
        const auto found = array.attr("__dlpack_device__")().cast<py::tuple>();
        type = found[0].cast<std::int32_t>();
        index = found[1].cast<std::int32_t>();
    } catch (const py::error_already_set& error) {
        fail(name, "has no memory that DLPack knows: " + py::str(error.value()).cast<std::string>());
    }
    const bool cpu = type == dlpack::kDLCPU || type == dlpack::kDLCUDAHost;
    const bool cuda = type == dlpack::kDLCUDA || type == dlpack::kDLCUDAManaged;
    if (wanted.cuda ? cuda && index == wanted.index : cpu) return;
    const std::string found = cpu    ? "on the CPU"
                              : cuda ? "on CUDA device " + std::to_string(index)
                                     : "on a device of DLPack type " + std::to_string(type);
    const std::string expected = wanted.cuda ? "CUDA device " + std::to_string(wanted.index) : "the CPU";
    fail(name, found + ", expected " + expected + "; move it there first");
}

py::object export_capsule(std::string_view name, const py::object& array, const Device& device) {
    py::dict how;
    if (device.cuda) how["stream"] = device.stream == 0 ? 1 : device.stream;  // DLPack: 1 is the legacy default stream
    try {
        try {
            return array.attr("__dlpack__")(py::arg("max_version") = py::make_tuple(1, 0), **how);
        } catch (const py::error_already_set& error) {
            if (!error.matches(PyExc_TypeError)) throw;
        }
        return array.attr("__dlpack__")(**how);  // from before DLPack 1.0
    } catch (const py::error_already_set& error) {
        fail(name, "cannot be handed over by DLPack: " + py::str(error.value()).cast<std::string>());
    }
}

DType dtype_from(std::string_view name, dlpack::DLDataType type) {
    if (type.lanes == 1) {
        if (type.code == dlpack::kDLFloat && type.bits == 32) return DType::float32;
        if (type.code == dlpack::kDLFloat && type.bits == 64) return DType::float64;
        if (type.code == dlpack::kDLFloat && type.bits == 16) return DType::float16;
        if (type.code == dlpack::kDLBfloat && type.bits == 16) return DType::bfloat16;
        if (type.code == dlpack::kDLUInt && type.bits == 8) return DType::uint8;
        if (type.code == dlpack::kDLUInt && type.bits == 16) return DType::uint16;
        if (type.code == dlpack::kDLInt && type.bits == 64) return DType::int64;
    }
    constexpr const char* kinds[] = {"int", "uint", "float", "opaque", "bfloat", "complex", "bool"};
    const std::string kind = type.code < 7 ? kinds[type.code] : "type " + std::to_string(type.code) + ", ";
    fail(name, "dtype is " + kind + std::to_string(type.bits) +
                   ", expected float32 or float64 (float16, bfloat16 for attention, uint8, uint16 for pixels, "
                   "int64 for groups)");
}

Tensor tensor_from(std::string_view name, const dlpack::DLTensor& source, bool read_only) {
    if (source.ndim < 0 || source.ndim > Tensor::max_rank) {
        fail(name, "has " + std::to_string(source.ndim) + " dimensions, expected at most " +
                       std::to_string(Tensor::max_rank));
    }
    Tensor t;
    t.data = static_cast<char*>(source.data) + source.byte_offset;
    t.dtype = dtype_from(name, source.dtype);
    const std::uintptr_t element = source.dtype.bits / 8u;
    if (reinterpret_cast<std::uintptr_t>(t.data) % element != 0) {
        fail(name, "is not aligned to its elements of " + std::to_string(element) + " bytes; copy it first");
    }
    t.rank = source.ndim;
    t.read_only = read_only;
    bool empty = false;
    for (int i = 0; i < t.rank; ++i) empty = empty || source.shape[i] == 0;
    std::int64_t contiguous_stride = 1;
    for (int i = t.rank; i-- > 0;) {
        const auto at = static_cast<std::size_t>(i);
        t.shape[at] = source.shape[i];
        const bool given = source.strides != nullptr && !empty;  // strides of an empty tensor mean nothing
        const std::int64_t stride = given ? source.strides[i] : contiguous_stride;
        t.stride[at] = t.shape[at] > 1 ? stride : 1;  // nor do those of size 1
        contiguous_stride *= std::max<std::int64_t>(1, t.shape[at]);
    }
    return t;
}

template <class Managed>
void release(void* managed) {
    auto* const self = static_cast<Managed*>(managed);
    if (self->deleter != nullptr) self->deleter(self);
}

// Takes ownership out of the capsule: renamed, so that nobody else calls the deleter.
template <class Managed>
Managed* consume(const py::object& capsule, const char* name, const char* used_name) {
    auto* const managed = static_cast<Managed*>(PyCapsule_GetPointer(capsule.ptr(), name));
    if (managed == nullptr || PyCapsule_SetName(capsule.ptr(), used_name) != 0) throw py::error_already_set();
    return managed;
}

}  // namespace

Imported::Imported(std::string_view name, const py::object& array, const Device& device) {
    if (py::isinstance<View>(array)) {
        tensor_ = array.cast<const View&>().tensor;
        return;
    }
    if (!py::hasattr(array, "__dlpack__") || !py::hasattr(array, "__dlpack_device__")) {
        fail(name, "is a " + type_name(array) + ", expected a tensor (a numpy array, a torch tensor: __dlpack__)");
    }
    check_device(name, array, device);
    take(name, export_capsule(name, array, device));
}

void Imported::take(std::string_view name, const py::object& capsule) {
    using dlpack::DLManagedTensor, dlpack::DLManagedTensorVersioned;
    const dlpack::DLTensor* source = nullptr;
    bool read_only = false;
    if (PyCapsule_IsValid(capsule.ptr(), "dltensor_versioned")) {
        auto* const m = consume<DLManagedTensorVersioned>(capsule, "dltensor_versioned", "used_dltensor_versioned");
        managed_ = m;
        release_ = release<DLManagedTensorVersioned>;
        read_only = (m->flags & dlpack::DLPACK_FLAG_BITMASK_READ_ONLY) != 0;
        source = &m->dl_tensor;
        if (m->version.major != 1) source = nullptr;
    } else if (PyCapsule_IsValid(capsule.ptr(), "dltensor")) {
        auto* const m = consume<DLManagedTensor>(capsule, "dltensor", "used_dltensor");
        managed_ = m;
        release_ = release<DLManagedTensor>;
        source = &m->dl_tensor;
    }
    try {
        if (source == nullptr) fail(name, "__dlpack__ gave no DLPack 1.x or older capsule");
        tensor_ = tensor_from(name, *source, read_only);
    } catch (...) {  // the destructor does not run for a constructor that throws
        if (managed_ != nullptr) release_(managed_);
        throw;
    }
}

Imported::~Imported() {
    if (managed_ != nullptr) release_(managed_);
}

}  // namespace normscan::bindings

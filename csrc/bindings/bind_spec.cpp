#include "bindings/bindings.hpp"
namespace normscan::bindings { void bind_spec(pybind11::module_&) {} }

// The operations of normscan on a GPU: caller-owned tensors of one device in, caller-owned tensors out.
//
// What each computes, and which shapes, strides and errors it has, is said in ops.hpp. Here every call is put on the
// caller's stream and returns at once: no synchronisation, no allocation, so that calls can be captured in a graph.
// Where room is needed besides the outputs, the caller gives it: `<op>_workspace` says how many bytes.
#pragma once

#include <span>

#include "normscan/ops.hpp"
#include "normscan/tensor.hpp"

namespace normscan::cuda {

// Where a call is put: a cudaStream_t (null: the legacy default stream) and the device that it belongs to.
struct Stream {
    void* handle = nullptr;
    int device = 0;
};

// How many devices this process can use; `why_none` says why there are none.
int device_count();
const char* why_none();

void resample(Stream stream, const Tensor& map, const Tensor& out);

}  // namespace normscan::cuda

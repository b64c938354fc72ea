// Which devices there are.
#include <cuda_runtime.h>

#include "normscan/cuda.hpp"

namespace normscan::cuda {
namespace {

struct Found {
    int count = 0;
    cudaError_t error = cudaSuccess;

    Found() { error = cudaGetDeviceCount(&count); }
};

const Found& found() {
    static const Found once;
    return once;
}

}  // namespace

int device_count() {
    return found().error == cudaSuccess ? found().count : 0;
}

const char* why_none() {
    if (found().error != cudaSuccess) return cudaGetErrorString(found().error);
    return found().count == 0 ? "no CUDA device is visible" : "";
}

}  // namespace normscan::cuda

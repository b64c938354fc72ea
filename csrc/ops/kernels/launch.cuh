// Launching kernels, and what their threads share. Included by kernels/*.cu only.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>
#include <string>
#include <string_view>

#include "normscan/cuda.hpp"
#include "normscan/error.hpp"

namespace normscan::cuda {

inline void check(std::string_view op, cudaError_t error) {
    if (error == cudaSuccess) return;
    throw Error(Error::Kind::device, std::string(op) + ": CUDA says: " + cudaGetErrorString(error));
}

// Makes a device the current one until the end of the scope.
class OnDevice {
  public:
    OnDevice(std::string_view op, int device) {
        check(op, cudaGetDevice(&before_));
        if (before_ != device) {
            check(op, cudaSetDevice(device));
            changed_ = true;
        }
    }
    ~OnDevice() {
        if (changed_) cudaSetDevice(before_);
    }
    OnDevice(const OnDevice&) = delete;
    OnDevice& operator=(const OnDevice&) = delete;

  private:
    int before_ = 0;
    bool changed_ = false;
};

struct Grid {
    dim3 blocks, threads;
    std::size_t shared = 0;  // bytes of dynamic shared memory
};

// The kernel on the stream. An empty grid launches nothing.
template <class... Parameters, class... Arguments>
void launch(std::string_view op, Stream stream, const Grid& grid, void (*kernel)(Parameters...),
            const Arguments&... arguments) {
    if (grid.blocks.x == 0 || grid.blocks.y == 0 || grid.blocks.z == 0) return;
    const OnDevice on(op, stream.device);
    if (grid.shared > 48 * 1024) {  // beyond that a kernel must be told
        check(op,
              cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, static_cast<int>(grid.shared)));
    }
    cudaLaunchConfig_t config = {};
    config.gridDim = grid.blocks;
    config.blockDim = grid.threads;
    config.dynamicSmemBytes = grid.shared;
    config.stream = static_cast<cudaStream_t>(stream.handle);
    check(op, cudaLaunchKernelEx(&config, kernel, Parameters(arguments)...));
}

inline int attribute(std::string_view op, Stream stream, cudaDeviceAttr which) {
    int value = 0;
    check(op, cudaDeviceGetAttribute(&value, which, stream.device));
    return value;
}

__host__ __device__ constexpr std::int64_t ceil_div(std::int64_t a, std::int64_t b) {
    return (a + b - 1) / b;
}

// Blocks for `work` items at `per_block` each, no more than a grid's first dimension takes; kernels loop with a grid's
// stride where there is more.
inline unsigned blocks_for(std::int64_t work, std::int64_t per_block) {
    const std::int64_t wanted = ceil_div(work, per_block), most = 0x7fffffff;
    return static_cast<unsigned>(wanted < most ? wanted : most);
}

// The dynamic shared memory of a block, aligned to 16 bytes.
template <class T>
__device__ __forceinline__ T* dynamic_shared() {
#ifdef NORMSCAN_EMULATED
    return reinterpret_cast<T*>(emulation::shared());
#else
    extern __shared__ __align__(16) unsigned char normscan_dynamic_shared[];
    return reinterpret_cast<T*>(normscan_dynamic_shared);
#endif
}

// The sum of a warp's values, in every lane.
template <class T>
__device__ __forceinline__ T warp_sum(T value) {
    for (int bits = 16; bits > 0; bits /= 2) value += __shfl_xor_sync(0xffffffffu, value, bits);
    return value;
}

// The larger, and NaN where either is NaN.
template <class T>
__device__ __forceinline__ T larger(T a, T b) {
    return a > b || a != a ? a : b;
}

template <class T>
__device__ __forceinline__ T warp_max(T value) {
    for (int bits = 16; bits > 0; bits /= 2) value = larger(value, __shfl_xor_sync(0xffffffffu, value, bits));
    return value;
}

}  // namespace normscan::cuda

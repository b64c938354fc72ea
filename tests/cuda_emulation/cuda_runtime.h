// CUDA's runtime and device language, as far as normscan's kernels use them, on the CPU.
//
// The kernels (csrc/ops/kernels/*.cu) are compiled unmodified by g++ with this folder ahead of the toolkit's. The
// threads of a block are fibers that one scheduler runs in a changing order, one block after another: wrong indices,
// unwritten outputs and missing barriers show as wrong results, out-of-bounds accesses under AddressSanitizer,
// unordered accesses to shared memory under ThreadSanitizer (a fiber counts as a thread; only barriers order fibers,
// shuffles do not). Dynamic shared memory starts as NaN and ends where the launch said. A barrier that not all threads
// reach is an error.
//
// Not emulated: speed, caches, memory ordering between blocks, inline PTX (kernels keep a portable form beside it).
#pragma once

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <functional>
#include <utility>

#define NORMSCAN_EMULATED 1

#define __global__
#define __device__
#define __host__
#define __forceinline__ inline
#define __launch_bounds__(...)
#define __shared__ static  // blocks run one at a time
#define __align__(n) __attribute__((aligned(n)))

struct dim3 {
    unsigned x = 1, y = 1, z = 1;
    dim3() = default;
    dim3(unsigned x_, unsigned y_ = 1, unsigned z_ = 1) : x(x_), y(y_), z(z_) {}
};
struct alignas(8) float2 {
    float x, y;
};
struct alignas(16) float4 {
    float x, y, z, w;
};
struct alignas(16) double2 {
    double x, y;
};
struct alignas(8) uint2 {
    unsigned x, y;
};
struct alignas(16) uint4 {
    unsigned x, y, z, w;
};
inline float2 make_float2(float x, float y) {
    return {x, y};
}
inline float4 make_float4(float x, float y, float z, float w) {
    return {x, y, z, w};
}
inline uint2 make_uint2(unsigned x, unsigned y) {
    return {x, y};
}
inline uint4 make_uint4(unsigned x, unsigned y, unsigned z, unsigned w) {
    return {x, y, z, w};
}

namespace emulation {

struct Place {
    dim3 thread, block, block_size, grid;
};
const Place& here();  // of the running fiber

void run(dim3 grid, dim3 block, std::size_t shared, const std::function<void()>& body);
void block_barrier();
int block_barrier_or(int predicate);
void warp_barrier(unsigned mask);  // orders memory, as __syncwarp
// Every lane of the mask gives a value and gets that of `lane`, its own where `lane` lies outside the warp.
std::uint64_t exchange(unsigned mask, std::uint64_t value, int lane);
unsigned ballot(unsigned mask, int predicate);
int lane();
unsigned char* shared();

template <class T>
T exchange_as(unsigned mask, T value, int lane) {
    static_assert(sizeof(T) <= 8);
    std::uint64_t bits = 0;
    std::memcpy(&bits, &value, sizeof value);
    bits = exchange(mask, bits, lane);
    std::memcpy(&value, &bits, sizeof value);
    return value;
}

}  // namespace emulation

namespace emulation {
template <dim3 Place::* which, unsigned dim3::* axis>
struct Coordinate {
    operator unsigned() const { return here().*which.*axis; }
};
template <dim3 Place::* which>
struct Coordinates {
    Coordinate<which, &dim3::x> x;
    Coordinate<which, &dim3::y> y;
    Coordinate<which, &dim3::z> z;
};
}  // namespace emulation

inline constexpr emulation::Coordinates<&emulation::Place::thread> threadIdx;
inline constexpr emulation::Coordinates<&emulation::Place::block> blockIdx;
inline constexpr emulation::Coordinates<&emulation::Place::block_size> blockDim;
inline constexpr emulation::Coordinates<&emulation::Place::grid> gridDim;
constexpr int warpSize = 32;

inline void __syncthreads() {
    emulation::block_barrier();
}
inline int __syncthreads_or(int predicate) {
    return emulation::block_barrier_or(predicate);
}
inline void __syncwarp(unsigned mask = 0xffffffffu) {
    emulation::warp_barrier(mask);
}

// Widths narrower than a warp: lanes exchange within their segment.
template <class T>
T __shfl_sync(unsigned mask, T value, int source, int width = 32) {
    return emulation::exchange_as(mask, value, emulation::lane() / width * width + source % width);
}
template <class T>
T __shfl_xor_sync(unsigned mask, T value, int bits, int width = 32) {
    const int own = emulation::lane(), source = own ^ bits;
    return emulation::exchange_as(mask, value, source / width <= own / width ? source : own);
}
template <class T>
T __shfl_down_sync(unsigned mask, T value, unsigned by, int width = 32) {
    const int own = emulation::lane(), source = own + static_cast<int>(by);
    return emulation::exchange_as(mask, value, source / width == own / width ? source : own);
}
template <class T>
T __shfl_up_sync(unsigned mask, T value, unsigned by, int width = 32) {
    const int own = emulation::lane(), source = own - static_cast<int>(by);
    return emulation::exchange_as(mask, value, source >= own / width * width ? source : own);
}
inline unsigned __ballot_sync(unsigned mask, int predicate) {
    return emulation::ballot(mask, predicate);
}
inline int __any_sync(unsigned mask, int predicate) {
    return emulation::ballot(mask, predicate) != 0;
}
inline int __all_sync(unsigned mask, int predicate) {
    return emulation::ballot(mask, predicate) == mask;
}

inline int atomicAdd(int* p, int v) {
    return __atomic_fetch_add(p, v, __ATOMIC_RELAXED);
}
inline unsigned atomicAdd(unsigned* p, unsigned v) {
    return __atomic_fetch_add(p, v, __ATOMIC_RELAXED);
}
inline int atomicMin(int* p, int v) {
    int old = __atomic_load_n(p, __ATOMIC_RELAXED);
    while (old > v && !__atomic_compare_exchange_n(p, &old, v, true, __ATOMIC_RELAXED, __ATOMIC_RELAXED)) {
    }
    return old;
}
inline int atomicMax(int* p, int v) {
    int old = __atomic_load_n(p, __ATOMIC_RELAXED);
    while (old < v && !__atomic_compare_exchange_n(p, &old, v, true, __ATOMIC_RELAXED, __ATOMIC_RELAXED)) {
    }
    return old;
}
inline unsigned atomicMax(unsigned* p, unsigned v) {
    unsigned old = __atomic_load_n(p, __ATOMIC_RELAXED);
    while (old < v && !__atomic_compare_exchange_n(p, &old, v, true, __ATOMIC_RELAXED, __ATOMIC_RELAXED)) {
    }
    return old;
}
namespace emulation {
template <class T, class Bits>
T atomic_add_floating(T* p, T v) {
    auto* const bits = reinterpret_cast<Bits*>(p);
    Bits old = __atomic_load_n(bits, __ATOMIC_RELAXED), wanted = 0;
    T before;
    do {
        std::memcpy(&before, &old, sizeof before);
        const T after = before + v;
        std::memcpy(&wanted, &after, sizeof after);
    } while (!__atomic_compare_exchange_n(bits, &old, wanted, true, __ATOMIC_RELAXED, __ATOMIC_RELAXED));
    return before;
}
}  // namespace emulation
inline float atomicAdd(float* p, float v) {
    return emulation::atomic_add_floating<float, std::uint32_t>(p, v);
}
inline double atomicAdd(double* p, double v) {
    return emulation::atomic_add_floating<double, std::uint64_t>(p, v);
}

inline int __float_as_int(float x) {
    int bits;
    std::memcpy(&bits, &x, sizeof bits);
    return bits;
}
inline unsigned __float_as_uint(float x) {
    return static_cast<unsigned>(__float_as_int(x));
}
inline float __int_as_float(int bits) {
    float x;
    std::memcpy(&x, &bits, sizeof x);
    return x;
}
inline float __uint_as_float(unsigned bits) {
    return __int_as_float(static_cast<int>(bits));
}
inline long long __double_as_longlong(double x) {
    long long bits;
    std::memcpy(&bits, &x, sizeof bits);
    return bits;
}
inline double __longlong_as_double(long long bits) {
    double x;
    std::memcpy(&x, &bits, sizeof x);
    return x;
}
inline float __expf(float x) {
    return std::exp(x);
}
inline float __logf(float x) {
    return std::log(x);
}
inline float __fdividef(float a, float b) {
    return a / b;
}
inline float rsqrtf(float x) {
    return 1.0f / std::sqrt(x);
}
inline double rsqrt(double x) {
    return 1.0 / std::sqrt(x);
}
template <class T>
T __ldg(const T* p) {
    return *p;
}
inline int __popc(unsigned x) {
    return __builtin_popcount(x);
}
inline int __clz(int x) {
    return x == 0 ? 32 : __builtin_clz(static_cast<unsigned>(x));
}
inline int __ffs(int x) {
    return __builtin_ffs(x);
}

// The runtime: one device, one stream.
using cudaStream_t = void*;
enum cudaError_t { cudaSuccess = 0, cudaErrorInvalidValue = 1, cudaErrorInvalidConfiguration = 9 };
enum cudaFuncAttribute { cudaFuncAttributeMaxDynamicSharedMemorySize = 8 };
enum cudaDeviceAttr {
    cudaDevAttrMultiProcessorCount = 16,
    cudaDevAttrComputeCapabilityMajor = 75,
    cudaDevAttrComputeCapabilityMinor = 76,
    cudaDevAttrMaxSharedMemoryPerBlockOptin = 97,
};
struct cudaLaunchConfig_t {
    dim3 gridDim, blockDim;
    std::size_t dynamicSmemBytes = 0;
    cudaStream_t stream = nullptr;
    void* attrs = nullptr;
    unsigned numAttrs = 0;
};
inline const char* cudaGetErrorString(cudaError_t error) {
    return error == cudaSuccess ? "no error" : "invalid launch configuration";
}
inline cudaError_t cudaGetLastError() {
    return cudaSuccess;
}
inline cudaError_t cudaGetDeviceCount(int* count) {
    *count = 1;
    return cudaSuccess;
}
inline cudaError_t cudaGetDevice(int* device) {
    *device = 0;
    return cudaSuccess;
}
inline cudaError_t cudaSetDevice(int device) {
    return device == 0 ? cudaSuccess : cudaErrorInvalidValue;
}
inline cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr attribute, int) {
    *value = attribute == cudaDevAttrMultiProcessorCount      ? 2
             : attribute == cudaDevAttrComputeCapabilityMajor ? 8
             : attribute == cudaDevAttrComputeCapabilityMinor ? 6
                                                              : 99 * 1024;  // that of a GPU of architecture 8.6
    return cudaSuccess;
}
inline cudaError_t cudaMemsetAsync(void* to, int value, std::size_t bytes, cudaStream_t) {
    std::memset(to, value, bytes);
    return cudaSuccess;
}
template <class Kernel>
cudaError_t cudaFuncSetAttribute(Kernel*, cudaFuncAttribute, int bytes) {
    return bytes <= 99 * 1024 ? cudaSuccess : cudaErrorInvalidValue;
}
template <class... Parameters, class... Arguments>
cudaError_t cudaLaunchKernelEx(const cudaLaunchConfig_t* config, void (*kernel)(Parameters...),
                               Arguments&&... arguments) {
    const dim3 grid = config->gridDim, block = config->blockDim;
    const unsigned threads = block.x * block.y * block.z;
    if (grid.x == 0 || grid.y == 0 || grid.z == 0 || grid.y > 65535 || grid.z > 65535 || threads == 0 ||
        threads > 1024 || config->dynamicSmemBytes > 99 * 1024) {
        return cudaErrorInvalidConfiguration;
    }
    emulation::run(grid, block, config->dynamicSmemBytes, [&] { kernel(arguments...); });
    return cudaSuccess;
}

// Kernels with one mistake each, to show that the emulation finds it: cmake/Cuda.cmake says in which build, and how.
//
//   cuda_emulation_selftest <name>    prints "right", "wrong" or what the emulation says
#include <cstdio>
#include <exception>
#include <map>
#include <string>
#include <vector>

#include "cuda_runtime.h"

namespace {

constexpr int threads = 64;

// Every kernel but the first is this one, changed: out[i] = values[threads - 1 - i], through shared memory.
__global__ void nothing_wrong(const float* values, float* out) {
    auto* const shared = reinterpret_cast<float*>(emulation::shared());
    const int i = static_cast<int>(threadIdx.x);
    shared[i] = values[i];
    __syncthreads();
    out[i] = shared[threads - 1 - i];
}

__global__ void missing_barrier(const float* values, float* out) {
    auto* const shared = reinterpret_cast<float*>(emulation::shared());
    const int i = static_cast<int>(threadIdx.x);
    shared[i] = values[i];
    out[i] = shared[threads - 1 - i];
}

// Others may not have read yet what is overwritten.
__global__ void missing_second_barrier(const float* values, float* out) {
    auto* const shared = reinterpret_cast<float*>(emulation::shared());
    const int i = static_cast<int>(threadIdx.x);
    shared[i] = values[i];
    __syncthreads();
    out[i] = shared[threads - 1 - i];
    shared[i] = -1.0f;
}

// Lanes of a warp do not run in step either: a shuffle between a write and a read orders nothing.
__global__ void shuffle_for_a_barrier(const float* values, float* out) {
    auto* const shared = reinterpret_cast<float*>(emulation::shared());
    const int i = static_cast<int>(threadIdx.x), other = i / 32 * 32 + 31 - i % 32;
    shared[i] = values[threads - 1 - other];
    __shfl_xor_sync(0xffffffffu, i, 1);
    out[i] = shared[other];
}

__global__ void half_of_a_barrier(const float* values, float* out) {
    const int i = static_cast<int>(threadIdx.x);
    if (i < threads / 2) __syncthreads();
    out[i] = values[threads - 1 - i];
}

__global__ void lane_outside_the_mask(const float* values, float* out) {
    const int i = static_cast<int>(threadIdx.x);
    if (i % 32 < 16) out[i] = __shfl_sync(0xffffu, values[i], 31 - i % 32);
}

__global__ void unwritten_output(const float* values, float* out) {
    const int i = static_cast<int>(threadIdx.x);
    if (i > 0) out[i] = values[threads - 1 - i];
}

__global__ void unwritten_shared_memory(const float* values, float* out) {
    auto* const shared = reinterpret_cast<float*>(emulation::shared());
    const int i = static_cast<int>(threadIdx.x);
    if (i > 0) shared[i] = values[i];
    __syncthreads();
    out[i] = shared[threads - 1 - i];
}

__global__ void past_the_launch_s_shared_memory(const float* values, float* out) {
    auto* const shared = reinterpret_cast<float*>(emulation::shared());
    const int i = static_cast<int>(threadIdx.x);
    shared[i + 1] = values[i];
    __syncthreads();
    out[i] = shared[threads - i];
}

__global__ void past_a_shared_array(const float* values, float* out) {
    __shared__ float shared[threads];
    const int i = static_cast<int>(threadIdx.x);
    shared[i + 1] = values[i];
    __syncthreads();
    out[i] = shared[threads - i];
}

__global__ void past_global_memory(const float* values, float* out) {
    const int i = static_cast<int>(threadIdx.x);
    out[i] = values[threads - i];
}

using Kernel = void (*)(const float*, float*);

const std::map<std::string, Kernel> kernels = {
    {"nothing_wrong", nothing_wrong},
    {"missing_barrier", missing_barrier},
    {"missing_second_barrier", missing_second_barrier},
    {"shuffle_for_a_barrier", shuffle_for_a_barrier},
    {"half_of_a_barrier", half_of_a_barrier},
    {"lane_outside_the_mask", lane_outside_the_mask},
    {"unwritten_output", unwritten_output},
    {"unwritten_shared_memory", unwritten_shared_memory},
    {"past_the_launch_s_shared_memory", past_the_launch_s_shared_memory},
    {"past_a_shared_array", past_a_shared_array},
    {"past_global_memory", past_global_memory},
};

bool right(Kernel kernel) {
    std::vector<float> values(threads), out(threads, NAN);
    for (int i = 0; i < threads; ++i) values[static_cast<std::size_t>(i)] = static_cast<float>(i);
    cudaLaunchConfig_t config;
    config.blockDim = dim3(threads);
    config.dynamicSmemBytes = threads * sizeof(float);
    if (cudaLaunchKernelEx(&config, kernel, values.data(), out.data()) != cudaSuccess) return false;
    for (std::size_t i = 0; i < threads; ++i) {
        if (out[i] != values[threads - 1 - i]) return false;
    }
    return true;
}

}  // namespace

int main(int count, char** arguments) {
    const auto found = count == 2 ? kernels.find(arguments[1]) : kernels.end();
    if (found == kernels.end()) {
        std::fputs("expected the name of a kernel of selftest.cpp\n", stderr);
        return 2;
    }
    try {
        std::puts(right(found->second) ? "right" : "wrong");
    } catch (const std::exception& error) {
        std::puts(error.what());
    }
    return 0;
}

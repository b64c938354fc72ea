// Pooling of maps on the GPU. Mean and maximum read a map once, in parts that a second kernel joins: memory-bound.
// For topk, quantile and area one block goes over a map several times (once for each 8 bits of a value, and once more;
// area four times): bound by the latency of a multiprocessor's share of the cache, and meant for maps of up to about a
// million pixels. Results are the same in every run, since only whole numbers are added in no fixed order.
#include <limits>

#include "normscan/cuda.hpp"
#include "ops/dispatch.hpp"
#include "ops/kernels/launch.cuh"
#include "ops/kernels/pool.cuh"
#include "ops/kernels/workspace.cuh"
#include "ops/pool.hpp"

namespace normscan::cuda {
namespace {

constexpr unsigned everyone = 0xffffffffu;
constexpr double infinity = std::numeric_limits<double>::infinity(), nan = std::numeric_limits<double>::quiet_NaN();
constexpr int part_threads = 256, select_threads = 1024;
constexpr std::int64_t most_parts = 256, part_pixels = 16 * 1024;

template <class T>
struct Maps {
    const T* data;
    std::int64_t image, row;
    int height, width;

    __host__ __device__ int pixels() const { return height * width; }

    // Calls f(pixel's number, value) for pixels first, first + step, ..., in any layout without a division a pixel. All
    // threads of a warp call equally often, beyond the last pixel with the number -1.
    template <class F>
    __device__ void walk(std::int64_t n, int first, int step, const F& f) const {
        const T* const from = data + n * image;
        const int down = step / width, across = step % width, warp = first / 32 * 32;
        int y = first / width, x = first % width;
        for (std::int64_t i = first, all = warp; all < pixels(); i += step, all += step) {
            const bool inside = i < pixels();
            f(inside ? static_cast<int>(i) : -1, inside ? from[y * row + x] : T(0));
            y += down;
            x += across;
            if (x >= width) {
                x -= width;
                ++y;
            }
        }
    }
};

// Where results go, one an image: all are found in double.
struct Results {
    void* data;
    bool doubles;

    __device__ void set(std::int64_t n, double value) const {
        if (doubles) {
            static_cast<double*>(data)[n] = value;
        } else {
            static_cast<float*>(data)[n] = static_cast<float>(value);
        }
    }
};

// A block's values joined by `join`, in every thread and always in the same order.
template <int threads, class V, class F>
__device__ V join_block(V value, const F& join) {
    __shared__ V part[threads / 32];
    for (int bits = 16; bits > 0; bits /= 2) value = join(value, __shfl_xor_sync(everyone, value, bits));
    __syncthreads();
    if (threadIdx.x % 32 == 0) part[threadIdx.x / 32] = value;
    __syncthreads();
    value = part[0];
    for (int i = 1; i < threads / 32; ++i) value = join(value, part[i]);
    return value;
}

struct Add {
    template <class V>
    __device__ V operator()(V a, V b) const {
        return a + b;
    }
};
struct Larger {
    template <class V>
    __device__ V operator()(V a, V b) const {
        return larger(a, b);
    }
};
struct Smaller {
    template <class V>
    __device__ V operator()(V a, V b) const {
        return a < b ? a : b;
    }
};

// Sum or maximum of a part of a map: part blockIdx.x % parts.
template <class T>
__global__ void __launch_bounds__(part_threads) part_kernel(Maps<T> map, int parts, bool maximum, double* result) {
    const std::int64_t n = blockIdx.x / static_cast<unsigned>(parts);
    const int part = static_cast<int>(blockIdx.x % static_cast<unsigned>(parts));
    double value = maximum ? -infinity : 0.0;
    map.walk(n, part * part_threads + static_cast<int>(threadIdx.x), parts * part_threads, [&](int i, T x) {
        if (i >= 0) value = maximum ? larger(value, static_cast<double>(x)) : value + static_cast<double>(x);
    });
    value = maximum ? join_block<part_threads>(value, Larger()) : join_block<part_threads>(value, Add());
    if (threadIdx.x == 0) result[blockIdx.x] = value;
}

// Joins the parts of a map: one warp each.
__global__ void __launch_bounds__(32)
    join_kernel(const double* parts, int count, bool maximum, double divisor, Results out) {
    const double* const own = parts + static_cast<std::int64_t>(blockIdx.x) * count;
    double value = maximum ? -infinity : 0.0;
    for (int i = static_cast<int>(threadIdx.x); i < count; i += 32) {
        value = maximum ? larger(value, own[i]) : value + own[i];
    }
    value = maximum ? warp_max(value) : warp_sum(value);
    if (threadIdx.x == 0) out.set(blockIdx.x, value / divisor);
}

// Whole numbers in the order of the values (not of NaN).
__device__ __forceinline__ std::uint32_t key_of(float x) {
    const std::uint32_t bits = __float_as_uint(x);
    return bits >> 31 != 0 ? ~bits : bits | 0x80000000u;
}
__device__ __forceinline__ float value_of(std::uint32_t key) {
    return __uint_as_float(key >> 31 != 0 ? key & 0x7fffffffu : ~key);
}
__device__ __forceinline__ std::uint64_t key_of(double x) {
    const auto bits = static_cast<std::uint64_t>(__double_as_longlong(x));
    return bits >> 63 != 0 ? ~bits : bits | (1ull << 63);
}
__device__ __forceinline__ double value_of(std::uint64_t key) {
    return __longlong_as_double(static_cast<long long>(key >> 63 != 0 ? key & ~(1ull << 63) : ~key));
}

// One more in a bin (-1: in none). Where a whole warp means the same bin, as with most maps' exponents, it adds once.
__device__ __forceinline__ void tally(int* bins, int bin) {
    const int first = __shfl_sync(everyone, bin, 0);
    if (__all_sync(everyone, bin == first)) {
        if (threadIdx.x % 32 == 0 && bin >= 0) atomicAdd(bins + bin, 32);
    } else if (bin >= 0) {
        atomicAdd(bins + bin, 1);
    }
}

// The first warp looks for the bin that holds `rank`, counted from the smallest, and what of the rank is left in it.
__device__ inline void find_bin(const int* bins, int& bin, int& rank) {
    if (threadIdx.x >= 32) return;
    const int lane = static_cast<int>(threadIdx.x), wanted = rank;
    int own = 0;
    for (int i = 0; i < 8; ++i) own += bins[lane * 8 + i];
    int past = own;  // values up to and including the lane's bins
    for (int by = 1; by < 32; by *= 2) {
        const int before = __shfl_up_sync(everyone, past, static_cast<unsigned>(by));
        if (lane >= by) past += before;
    }
    int left = wanted - (past - own);
    __syncwarp();
    if (left < 0 || left >= own) return;
    int i = lane * 8;
    for (; left >= bins[i]; ++i) left -= bins[i];
    bin = i;
    rank = left;
}

// The key of the value of that rank, 0 being the smallest; to be called by a whole block.
template <class T>
__device__ auto select(const Maps<T>& map, std::int64_t n, int rank) {
    using Key = decltype(key_of(T()));
    __shared__ int bins[256], bin, left;
    const int thread = static_cast<int>(threadIdx.x);
    if (thread == 0) left = rank;
    Key prefix = 0, mask = 0;
    for (int shift = static_cast<int>(sizeof(Key)) * 8 - 8; shift >= 0; shift -= 8) {
        for (int i = thread; i < 256; i += select_threads) bins[i] = 0;
        __syncthreads();
        map.walk(n, thread, select_threads, [&](int i, T x) {
            const Key key = key_of(x);
            tally(bins, i >= 0 && (key & mask) == prefix ? static_cast<int>(key >> shift & 0xff) : -1);
        });
        __syncthreads();
        find_bin(bins, bin, left);
        __syncthreads();
        prefix |= static_cast<Key>(bin) << shift;
        mask |= static_cast<Key>(0xff) << shift;
        __syncthreads();
    }
    return prefix;
}

template <class T>
__device__ bool has_nan(const Maps<T>& map, std::int64_t n) {
    int bad = 0;
    map.walk(n, static_cast<int>(threadIdx.x), select_threads, [&](int, T x) { bad |= x != x ? 1 : 0; });
    return __syncthreads_or(bad) != 0;
}

// Mean of the k largest of a map a block: those above the k-th, and as many like it as are missing.
template <class T>
__global__ void __launch_bounds__(select_threads) topk_kernel(Maps<T> map, int k, Results out) {
    const std::int64_t n = blockIdx.x;
    if (has_nan(map, n)) {
        if (threadIdx.x == 0) out.set(n, nan);
        return;
    }
    const auto least = select(map, n, map.pixels() - k);
    double sum = 0.0;
    int count = 0;
    map.walk(n, static_cast<int>(threadIdx.x), select_threads, [&](int i, T x) {
        if (i >= 0 && key_of(x) > least) {
            sum += static_cast<double>(x);
            ++count;
        }
    });
    sum = join_block<select_threads>(sum, Add());
    count = join_block<select_threads>(count, Add());
    if (threadIdx.x == 0) {
        out.set(n, (sum + static_cast<double>(k - count) * static_cast<double>(value_of(least))) / k);
    }
}

// The value of rank `below` of a map a block, and `share` of the way to the next one.
template <class T>
__global__ void __launch_bounds__(select_threads) quantile_kernel(Maps<T> map, int below, double share, Results out) {
    const std::int64_t n = blockIdx.x;
    if (has_nan(map, n)) {
        if (threadIdx.x == 0) out.set(n, nan);
        return;
    }
    const auto key = select(map, n, below);
    auto next = key_of(static_cast<T>(infinity));
    int up_to = 0;  // values up to and including the one of that rank
    map.walk(n, static_cast<int>(threadIdx.x), select_threads, [&](int i, T x) {
        if (i < 0) return;
        const auto other = key_of(x);
        if (other <= key) {
            ++up_to;
        } else if (other < next) {
            next = other;
        }
    });
    next = join_block<select_threads>(next, Smaller());
    up_to = join_block<select_threads>(up_to, Add());
    if (threadIdx.x != 0) return;
    const auto low = static_cast<double>(value_of(key));
    const double high = up_to > below + 1 ? low : static_cast<double>(value_of(next));
    out.set(n, share == 0.0 || low == high ? low : low + share * (high - low));
}

// A label that other threads may lower meanwhile.
__device__ __forceinline__ int label_at(const int* labels, int i) {
#ifdef NORMSCAN_EMULATED
    return __atomic_load_n(labels + i, __ATOMIC_RELAXED);
#else
    return *static_cast<const volatile int*>(labels + i);
#endif
}

__device__ __forceinline__ int root_of(const int* labels, int i) {
    for (int up = label_at(labels, i); up != i; up = label_at(labels, i)) i = up;
    return i;
}

// Two trees of pixels become one, under the smaller root.
__device__ __forceinline__ void unite(int* labels, int a, int b) {
    for (;;) {
        a = root_of(labels, a);
        b = root_of(labels, b);
        if (a == b) return;
        const int high = a > b ? a : b, low = a > b ? b : a;
        const int before = atomicMin(labels + high, low);
        if (before == high) return;
        a = before;  // somebody was quicker: what that one hung it to is to be united too
        b = low;
    }
}

// Share of pixels in the largest 8-connected component above the threshold, of a map a block. A pixel's label is one of
// its component, in the end the smallest; -1 at or below the threshold.
template <class T>
__global__ void __launch_bounds__(select_threads) area_kernel(Maps<T> map, double threshold, int* memory, Results out) {
    const std::int64_t n = blockIdx.x;
    const int thread = static_cast<int>(threadIdx.x), pixels = map.pixels(), width = map.width;
    int* const labels = memory + 2 * n * pixels;
    int* const counts = labels + pixels;
    int bad = 0;
    map.walk(n, thread, select_threads, [&](int i, T x) {
        if (i < 0) return;
        bad |= x != x ? 1 : 0;
        labels[i] = static_cast<double>(x) > threshold ? i : -1;
        counts[i] = 0;
    });
    if (__syncthreads_or(bad) != 0) {
        if (thread == 0) out.set(n, nan);
        return;
    }
    for (int i = thread; i < pixels; i += select_threads) {
        if (label_at(labels, i) < 0) continue;
        const int x = i % width;
        const auto join = [&](int other) {
            if (label_at(labels, other) >= 0) unite(labels, i, other);
        };
        if (x > 0) join(i - 1);
        if (i < width) continue;
        if (x > 0) join(i - width - 1);
        join(i - width);
        if (x + 1 < width) join(i - width + 1);
    }
    __syncthreads();
    for (int i = thread; i - thread % 32 < pixels; i += select_threads) {
        tally(counts, i < pixels && label_at(labels, i) >= 0 ? root_of(labels, i) : -1);
    }
    __syncthreads();
    int largest = 0;
    for (int i = thread; i < pixels; i += select_threads) largest = counts[i] > largest ? counts[i] : largest;
    largest = join_block<select_threads>(largest, Larger());
    if (thread == 0) out.set(n, static_cast<double>(largest) / static_cast<double>(pixels));
}

std::int64_t parts_of(const Tensor& map) {
    return std::clamp<std::int64_t>(ceil_div(map.size(1) * map.size(2), part_pixels), 1, most_parts);
}

struct Scratch {
    int* counts = nullptr;   // of area
    double* sums = nullptr;  // of mean and max: of the parts of images

    Scratch(Workspace& room, const Tensor& map, PoolMethod method) {
        const std::int64_t images = map.size(0);
        if (method == PoolMethod::area) counts = room.take<int>(2 * images * map.size(1) * map.size(2));
        if (method == PoolMethod::mean || method == PoolMethod::max) sums = room.take<double>(images * parts_of(map));
    }
};

template <class T>
void run(Stream stream, const Tensor& map, const Results& to, PoolMethod method, double parameter,
         const Scratch& scratch) {
    const std::int64_t images = map.size(0), pixels = map.size(1) * map.size(2);
    if (pixels > 0x7fffffff - 2 * select_threads * most_parts || images > 0x7fffffff / most_parts) {
        Check("pool").fail("map has shape ", shape_text(map), ", too much for one call on a GPU; split the batch");
    }
    const Maps<T> maps = {map.as<const T>(), map.step(0), map.step(1), static_cast<int>(map.size(1)),
                          static_cast<int>(map.size(2))};
    const auto blocks = static_cast<unsigned>(images);
    if (method == PoolMethod::topk) {
        const auto k = static_cast<int>(topk_count(parameter, pixels));
        return launch("pool", stream, {blocks, select_threads}, topk_kernel<T>, maps, k, to);
    }
    if (method == PoolMethod::quantile) {
        const double at = parameter * static_cast<double>(pixels - 1), below = std::floor(at);
        return launch("pool", stream, {blocks, select_threads}, quantile_kernel<T>, maps, static_cast<int>(below),
                      at - below, to);
    }
    if (method == PoolMethod::area) {
        return launch("pool", stream, {blocks, select_threads}, area_kernel<T>, maps, parameter, scratch.counts, to);
    }
    const auto parts = static_cast<int>(parts_of(map));
    const bool maximum = method == PoolMethod::max;
    launch("pool", stream, {blocks * static_cast<unsigned>(parts), part_threads}, part_kernel<T>, maps, parts, maximum,
           scratch.sums);
    launch("pool", stream, {blocks, 32}, join_kernel, scratch.sums, parts, maximum,
           maximum ? 1.0 : static_cast<double>(pixels), to);
}

void pool_checked(Stream stream, const Tensor& map, const Results& to, const Tensor& workspace, PoolMethod method,
                  double parameter) {
    if (map.size(0) == 0) return;
    Workspace room(Check("pool"), workspace, pool_workspace(map, method));
    const Scratch scratch(room, map, method);
    for_dtype(map.dtype, [&]<class T>() { run<T>(stream, map, to, method, parameter, scratch); });
}

}  // namespace

std::int64_t pool_workspace(const Tensor& map, PoolMethod method) {
    Workspace counted;
    Scratch(counted, map, method);
    return counted.bytes();
}

void pool(Stream stream, const Tensor& map, const Tensor& out, const Tensor& workspace, PoolMethod method,
          double parameter) {
    check_pool(map, out, method, parameter);
    pool_checked(stream, map, {out.data, out.dtype == DType::float64}, workspace, method, parameter);
}

void pool_doubles(Stream stream, const Tensor& map, double* out, const Tensor& workspace, PoolMethod method,
                  double parameter) {
    check_pool_map(Check("pool"), map, method, parameter);
    pool_checked(stream, map, {out, true}, workspace, method, parameter);
}

}  // namespace normscan::cuda

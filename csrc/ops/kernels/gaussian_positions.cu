// A Gaussian at every position, on the GPU. Bound by reading the whiteners, once for eight images.
#include "normscan/cuda.hpp"
#include "ops/check.hpp"
#include "ops/dispatch.hpp"
#include "ops/gaussian.hpp"
#include "ops/kernels/gaussian_layout.cuh"
#include "ops/kernels/gaussian_output.cuh"

namespace normscan::cuda {
namespace {

constexpr int group = 8, rows = 4;  // images and rows of a whitener at a time: a sum for each lane of a warp
constexpr int most_positions = 8;   // of a block, a warp each
constexpr std::int64_t shared_wanted = 48 * 1024;

template <class T>
struct Call {
    const T *z, *mean, *whitener;
    T* out;
    Layout layout;
    Steps z_steps, mean_steps, whitener_steps, out_steps;
    std::int64_t row_step;  // of a full whitener; 0: packed
    int channels, positions;
    Output<T> output;

    __device__ const T* row(const T* triangle, std::int64_t i) const {
        return triangle + (row_step == 0 ? i * (i + 1) / 2 : i * row_step);
    }
    // Channels of a position lie an odd number apart, so that the positions of a block meet in no bank.
    __host__ __device__ int stride() const { return (channels | 1) * group; }
};

// x [positions][channels][images]: z - mean; zeros for images that are not there.
template <class T>
__device__ void centre(const Call<T>& a, std::int64_t n, std::int64_t first, std::int64_t count, T* x) {
    const bool by_channels = a.z_steps.channel == 1;
    const int total = a.positions * a.channels * group;
    for (int i = static_cast<int>(threadIdx.x); i < total; i += static_cast<int>(blockDim.x)) {
        // Neighbouring threads read neighbouring channels, or the same few positions of eight images.
        const int c = by_channels ? i % a.channels : i / (group * a.positions);
        const int image = by_channels ? i / a.channels % group : i % group;
        const int position = by_channels ? i / a.channels / group : i / group % a.positions;
        if (position >= count) continue;
        T value = T(0);
        if (n + image < a.layout.images) {
            const std::int64_t q = first + position;
            value = a.z[(n + image) * a.z_steps.image + c * a.z_steps.channel + a.z_steps.at(a.layout, q)] -
                    a.mean[c * a.mean_steps.channel + a.mean_steps.at(a.layout, q)];
        }
        x[position * a.stride() + c * group + image] = value;
    }
}

// Each lane gives 2 half values and gets the sum over 2 half lanes of one, that of its number: 31 exchanges for 32
// values, not 160. A template, so that the values stay in registers.
template <int half, class T>
__device__ __forceinline__ T scattered_sum(T (&values)[32]) {
    const bool upper = (static_cast<int>(threadIdx.x) & half) != 0;
#pragma unroll
    for (int k = 0; k < half; ++k) {
        const T keep = upper ? values[k + half] : values[k], give = upper ? values[k] : values[k + half];
        values[k] = keep + __shfl_xor_sync(0xffffffffu, give, half);
    }
    if constexpr (half > 1) {
        return scattered_sum<half / 2>(values);
    } else {
        return values[0];
    }
}

// The squared distances of eight images, image i in the lanes i, i + 8, i + 16 and i + 24.
template <class T>
__device__ T squared_distances(const Call<T>& a, const T* triangle, const T* x) {
    const int lane = static_cast<int>(threadIdx.x) % 32;
    T squares = T(0);
    for (int i = 0; i < a.channels; i += rows) {
        const T* row[rows];
#pragma unroll
        for (int r = 0; r < rows; ++r) row[r] = a.row(triangle, i + r);
        T sums[rows * group] = {};
        const int end = i + rows < a.channels ? i + rows : a.channels;
#pragma unroll 2
        for (int j = lane; j < end; j += 32) {
            T v[2][4], w[rows];
#pragma unroll
            for (int r = 0; r < rows; ++r) w[r] = j <= i + r && i + r < a.channels ? row[r][j] : T(0);
            load_four(x + j * group, 4, true, v[0]);
            load_four(x + j * group + 4, 4, true, v[1]);
#pragma unroll
            for (int e = 0; e < rows * group; ++e) sums[e] += w[e / group] * v[e % group / 4][e % 4];
        }
        const T y = scattered_sum<16>(sums);
        squares += y * y;
    }
    squares += __shfl_xor_sync(0xffffffffu, squares, 8);
    return squares + __shfl_xor_sync(0xffffffffu, squares, 16);
}

template <class T>
__global__ void __launch_bounds__(32 * most_positions) positions_kernel(Call<T> a) {
    T* const x = dynamic_shared<T>();
    const int lane = static_cast<int>(threadIdx.x) % 32, warp = static_cast<int>(threadIdx.x) / 32;
    // Blocks of the same positions are neighbours: the whiteners come from memory once.
    const std::int64_t groups = ceil_div(a.layout.images, group), n = blockIdx.x % groups * group;
    const std::int64_t first = blockIdx.x / groups * a.positions, count = a.layout.plane() - first, q = first + warp;
    centre(a, n, first, count, x);
    __syncthreads();
    if (warp >= count) return;
    const T* const triangle = a.whitener + a.whitener_steps.at(a.layout, q);
    const T squared_distance = squared_distances(a, triangle, x + warp * a.stride());
    T log_density = T(0);
    if (a.output.kind == GaussianOutput::nll) {
        for (int i = lane; i < a.channels; i += 32) log_density += log(fabs(a.row(triangle, i)[i]));
        log_density = warp_sum(log_density) - static_cast<T>(a.channels) * static_cast<T>(half_log_two_pi);
    }
    if (lane >= group || n + lane >= a.layout.images) return;
    Result<T> result;
    result.add(a.output, log_density, squared_distance);
    a.out[(n + lane) * a.out_steps.image + a.out_steps.at(a.layout, q)] = result.value(a.output);
}

template <class T>
void run(Stream stream, const Tensor& z, const Tensor& mean, const Tensor& whitener, const Tensor& out,
         Output<T> output) {
    constexpr std::string_view op = "gaussian_positions";
    Call<T> a = {z.as<const T>(),
                 mean.as<const T>(),
                 whitener.as<const T>(),
                 out.as<T>(),
                 layout_of(z),
                 steps_of(z),
                 {0, step(mean, 0), step(mean, 1), step(mean, 2)},
                 {0, 0, step(whitener, 0), step(whitener, 1)},
                 map_steps_of(out),
                 whitener.rank == 4 ? whitener.step(2) : 0,
                 static_cast<int>(z.size(1)),
                 most_positions,
                 output};
    const std::int64_t images = a.layout.images;
    a.layout.images = 1;  // an image's positions are merged, images are not: all have the same Gaussians
    merge(a.layout, {&a.z_steps, &a.mean_steps, &a.whitener_steps, &a.out_steps});
    a.layout.images = images;
    const std::int64_t of_position = static_cast<std::int64_t>(sizeof(T)) * a.stride();
    while (a.positions > 1 && a.positions * of_position > shared_wanted) a.positions /= 2;
    const int most = attribute(op, stream, cudaDevAttrMaxSharedMemoryPerBlockOptin);
    if (of_position > most) {
        Check(op).fail("z has ", a.channels, " channels, this GPU's shared memory takes at most ",
                       most / static_cast<int>(group * sizeof(T)) - 1);
    }
    const std::int64_t blocks = ceil_div(a.layout.plane(), a.positions) * ceil_div(images, group);
    if (blocks > 0x7fffffff) Check(op).fail("z has too many positions for one call; pass fewer images");
    const Grid grid = {static_cast<unsigned>(blocks), static_cast<unsigned>(32 * a.positions),
                       static_cast<std::size_t>(a.positions * of_position)};
    launch(op, stream, grid, positions_kernel<T>, a);
}

}  // namespace

void gaussian_positions(Stream stream, const Tensor& z, const Tensor& mean, const Tensor& whitener, const Tensor& out,
                        GaussianOutput output, double saturation) {
    check_gaussian_positions(z, mean, whitener, out, saturation);
    for_dtype(z.dtype,
              [&]<class T>() { run<T>(stream, z, mean, whitener, out, {output, static_cast<T>(saturation)}); });
}

}  // namespace normscan::cuda

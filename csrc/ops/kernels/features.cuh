// How the threads of a GPU share the features of many positions: for kernels/distance*.cu.
#pragma once

#include "ops/distance.hpp"
#include "ops/kernels/launch.cuh"

#ifdef NORMSCAN_EMULATED
#define NORMSCAN_UNROLL
#else
#define NORMSCAN_UNROLL _Pragma("unroll")  // arrays stay in registers only where every index is a constant
#endif

namespace normscan::cuda {
namespace {

// Values that are read and written at once.
template <class T, int count>
struct alignas(sizeof(T) * count) Pack {
    T value[count];
};

// [N,C,H,W], or [N,H,W] with no channels. Dimensions of size 1 have stride 0.
template <class T>
struct Features {
    T* data;
    std::int64_t image, channel, row, column;

    __device__ T* at(std::int64_t n, int y, int x) const { return data + n * image + y * row + x * column; }
};

template <class T>
Features<T> features(const Tensor& t) {
    const auto step = [&](int dimension) { return t.size(dimension) > 1 ? t.step(dimension) : 0; };
    if (t.rank == 3) return {t.as<T>(), step(0), 0, step(1), step(2)};
    return {t.as<T>(), step(0), step(1), step(2), step(3)};
}

template <class T>
bool aligned(const Features<T>& f, int width) {
    return reinterpret_cast<std::uintptr_t>(f.data) % (sizeof(T) * static_cast<std::size_t>(width)) == 0 &&
           f.image % width == 0;
}

// Whether packs of positions can be read: all positions of a channel in one piece.
template <class T>
bool along_positions(const Features<T>& f, std::int64_t rows, std::int64_t columns, int width) {
    const bool one_piece =
        (columns == 1 ? rows == 1 || f.row == 1 : f.column == 1) && (rows == 1 || columns == 1 || f.row == columns);
    return width == 1 || (one_piece && rows * columns % width == 0 && f.channel % width == 0 && aligned(f, width));
}

// Whether packs of channels can be read.
template <class T>
bool along_channels(const Features<T>& f, std::int64_t channels, int width) {
    return channels % width == 0 && f.row % width == 0 && f.column % width == 0 && aligned(f, width);
}

enum class Packs { positions, channels, single_channels };

// The work of one launch: `tiles` blocks an image.
struct Share {
    int channels, positions, width;  // width of the image in positions
    unsigned tiles;
    int lanes;  // threads of a position, where packs lie along channels
};

// A thread's place in it. It holds K packs of `count` values:
// - along positions: `count` adjacent positions, and of their channels every blockDim.y-th;
// - along channels: one position, and of its channels `count` at a time, then those `lanes` packs further on. Where
//   these cannot be read at once (single_channels) the sums are still the same.
// Which thread adds what depends on the number of channels alone, not on alignment, layout of the batch or its size.
template <class T, int count_, int K, Packs packs>
struct Team {
    static constexpr int count = count_;
    static constexpr bool beside = packs != Packs::positions, singly = packs == Packs::single_channels;
    static constexpr int sums = beside ? 1 : count;  // positions of a thread
    static constexpr int most_warps = 16, packs_held = K;
    static constexpr int blocks = K * count * sizeof(T) > 64 ? 1 : 2;  // of 512 threads, for which registers must do
    using Values = Pack<T, count>[K];

    std::int64_t image;
    int position, channels;  // the first position; channels to read, 0 outside the image
    int first, step, lanes;  // channel of the first pack, and from pack to pack
    int y, x;

    __device__ explicit Team(const Share& s) {
        image = blockIdx.x / s.tiles;
        const int tile = static_cast<int>(blockIdx.x % s.tiles);
        const int lane = static_cast<int>(threadIdx.x);
        if constexpr (beside) {
            lanes = s.lanes;
            const int group = static_cast<int>(threadIdx.y) * (32 / lanes) + lane / lanes;
            position = tile * (static_cast<int>(blockDim.y) * (32 / lanes)) + group;
            first = lane % lanes * count;
            step = lanes * count;
        } else {
            lanes = static_cast<int>(blockDim.y);
            position = ((tile * static_cast<int>(blockDim.z) + static_cast<int>(threadIdx.z)) * 32 + lane) * count;
            first = static_cast<int>(threadIdx.y);
            step = lanes;
        }
        channels = position < s.positions ? s.channels : 0;
        y = position / s.width;
        x = position % s.width;
    }

    __device__ bool inside() const { return channels > 0; }
    __device__ bool writes_position() const { return inside() && first == 0; }
    // Where the thread's channels are more than it can hold, it reads them anew for each pass.
    __device__ bool holds_all() const { return first + K * step >= channels; }

    // From the channel c on: packs c, c + step, ...; 0 beyond the last channel.
    __device__ void load(Values& into, const T* from, std::int64_t channel, int c) const {
        NORMSCAN_UNROLL
        for (int k = 0; k < K; ++k, c += step) {
            if constexpr (singly) {
                NORMSCAN_UNROLL
                for (int i = 0; i < count; ++i) into[k].value[i] = c + i < channels ? from[c + i] : T(0);
            } else {
                const std::int64_t at = beside ? c : c * channel;
                into[k] = c < channels ? *reinterpret_cast<const Pack<T, count>*>(from + at) : Pack<T, count>{};
            }
        }
    }
    __device__ void store(const Values& from, T* to, std::int64_t channel, int c) const {
        NORMSCAN_UNROLL
        for (int k = 0; k < K; ++k, c += step) {
            if constexpr (singly) {
                NORMSCAN_UNROLL
                for (int i = 0; i < count; ++i) {
                    if (c + i < channels) to[c + i] = from[k].value[i];
                }
            } else {
                const std::int64_t at = beside ? c : c * channel;
                if (c < channels) *reinterpret_cast<Pack<T, count>*>(to + at) = from[k];
            }
        }
    }

    // Calls f(pack, value in it, sum that it belongs to).
    template <class F>
    __device__ static void each(const F& f) {
        NORMSCAN_UNROLL
        for (int k = 0; k < K; ++k) {
            NORMSCAN_UNROLL
            for (int i = 0; i < count; ++i) f(k, i, beside ? 0 : i);
        }
    }

    // Of every position the sums over the threads that share it, for all of these.
    template <int M>
    __device__ void add_up(T (&value)[M]) const {
        if constexpr (beside) {
            for (int m = 0; m < M; ++m) {
                for (int bits = lanes / 2; bits > 0; bits /= 2)
                    value[m] += __shfl_xor_sync(0xffffffffu, value[m], bits);
            }
        } else {
            if (lanes == 1) return;
            __shared__ T part[most_warps][M][32];
            T(*const own)[M][32] = part + threadIdx.z * static_cast<unsigned>(lanes);
            NORMSCAN_UNROLL
            for (int m = 0; m < M; ++m) own[threadIdx.y][m][threadIdx.x] = value[m];
            __syncthreads();
            for (int m = static_cast<int>(threadIdx.y); m < M; m += lanes) {
                T sum = own[0][m][threadIdx.x];
                for (int warp = 1; warp < lanes; ++warp) sum += own[warp][m][threadIdx.x];
                own[0][m][threadIdx.x] = sum;
            }
            __syncthreads();
            NORMSCAN_UNROLL
            for (int m = 0; m < M; ++m) value[m] = own[0][m][threadIdx.x];
            __syncthreads();
        }
    }
};

inline std::int64_t power_of_two(std::int64_t least) {
    std::int64_t power = 1;
    while (power < least) power *= 2;
    return power;
}

// Blocks and threads for a Team, and its Share of the work.
struct Plan {
    Share share;
    Grid grid;
};

template <class Team>
Plan plan(const Check& check, const DistanceSizes& s) {
    constexpr std::int64_t most = 0x7fffffff;
    if (s.positions > most - 4096 || s.channels > most / 2) {
        check.fail("a has ", s.channels, " channels of ", s.height, " x ", s.width,
                   " positions, expected fewer than 2^31 positions and 2^30 channels on a GPU");
    }
    constexpr std::int64_t count = Team::count;
    std::int64_t lanes = 1, tile = 0;
    dim3 threads;
    if constexpr (Team::beside) {
        lanes = power_of_two(s.channels < 64 * count ? ceil_div(s.channels, 2 * count) : 32);
        threads = dim3(32, 8);
        tile = 8 * 32 / lanes;
    } else {
        lanes = power_of_two(s.channels < 64 ? ceil_div(s.channels, 4) : 16);
        const std::int64_t beside = lanes < 8 ? 8 / lanes : 1;
        threads = dim3(32, static_cast<unsigned>(lanes), static_cast<unsigned>(beside));
        tile = 32 * count * beside;
    }
    const std::int64_t tiles = ceil_div(s.positions, tile);
    if (tiles > most / s.images) {
        check.fail("a has ", s.images, " images of ", s.positions, " positions, too many for one call on a GPU; ",
                   "split the batch");
    }
    return {{static_cast<int>(s.channels), static_cast<int>(s.positions), static_cast<int>(s.width),
             static_cast<unsigned>(tiles), static_cast<int>(lanes)},
            {static_cast<unsigned>(tiles * s.images), threads}};
}

}  // namespace
}  // namespace normscan::cuda

// Attention of one block of queries of one head, and the gradients of one chunk of keys of one head.
//
// Everything is kept transposed, lanes are queries: scores [keys][queries], results [dv][queries]. So the maximum and
// the sum over keys are plain vector operations, and K and V are read where they lie, whatever their strides.
#pragma once

#include "normscan/half.hpp"
#include "ops/kernels/isa.hpp"

namespace normscan::kernels {

constexpr std::int64_t attention_queries = 64;  // a block of queries
constexpr std::int64_t attention_keys = 64;     // a block of keys
constexpr std::int64_t attention_chunk = 512;   // keys whose values and gradients stay in the second cache

// The table [2h-1][2w-1] of one head, for positions on a grid of h x w, row-major. Inner stride 1.
template <class T>
struct RelativeBias {
    const T* table;  // nullptr: there is none
    std::int64_t row, height, width;
};

// The gate of a residual block: out = residual + gamma result. Without a residual there is none.
template <class S>
struct AttentionGate {
    Matrix<const S> residual;  // like all below, of this head; starts at the block
    Matrix<S> attended;        // takes the result before the gate; data nullptr: nobody wants it
    Accumulator<S> gamma;
};

// S is what tensors hold; sums, scratch, the bias and lse are in Accumulator<S>.
template <class S>
struct AttentionForward {
    using A = Accumulator<S>;
    Matrix<const S> q, k, v;  // of this head; q starts at the block
    RelativeBias<A> bias;
    AttentionGate<S> gate;
    Matrix<S> out;
    A* lse;
    std::int64_t lse_step;
    std::int64_t first_query, queries, keys, key_depth, value_depth;  // queries <= attention_queries
    A scale;
    A* scratch;  // (key_depth + value_depth + attention_keys + 2) * attention_queries, and for 16 bits max(depths) * 64
};

template <class S>
struct AttentionBackward {
    using A = Accumulator<S>;
    Matrix<const S> grad_out, q, k, v, out;  // of this head; k and v start at the chunk
    RelativeBias<A> bias;
    const A* lse;
    std::int64_t lse_step;
    A* grad_q;                 // [blocks of queries][key_depth][attention_queries], not yet times scale; added to
    Matrix<S> grad_k, grad_v;  // start at the chunk; written
    A* grad_bias;              // [2h-1][2w-1], contiguous; added to
    std::int64_t queries, first_key, keys, key_depth, value_depth;  // keys <= attention_chunk
    A scale, gamma;                                                 // grad_out counts gamma times
    A* scratch;  // (2 (kd + vd) + 2 B + 2) B + keys (kd + vd), B = 64, kd and vd rounded up to 16; for 16 bits again
                 // keys (kd + vd) + B max(kd, vd)
};

template <class S>
struct AttentionKernels {
    void (*forward)(const AttentionForward<S>&);
    void (*backward)(const AttentionBackward<S>&);
    // to [rows][columns] = from
    void (*put)(Matrix<const Accumulator<S>> from, std::int64_t rows, std::int64_t columns, Matrix<S> to);
    // sum of a b, both [rows][columns]; scratch for 2 columns, unused at 32 bits and above
    double (*dot)(Matrix<const S> a, Matrix<const S> b, std::int64_t rows, std::int64_t columns,
                  Accumulator<S>* scratch);
};

struct AttentionTable {
    AttentionKernels<float> f32;
    AttentionKernels<double> f64;
    AttentionKernels<Float16> f16;
    AttentionKernels<BFloat16> bf16;
};
NORMSCAN_DECLARE_KERNELS(AttentionTable, attention);

}  // namespace normscan::kernels

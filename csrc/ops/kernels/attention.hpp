// Attention of one block of queries of one head, and the gradients of one chunk of keys of one head.
//
// Everything is kept transposed, lanes are queries: scores [keys][queries], results [dv][queries]. So the maximum and
// the sum over keys are plain vector operations, and K and V are read where they lie, whatever their strides.
#pragma once

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

template <class T>
struct AttentionForward {
    Matrix<const T> q, k, v;  // of this head; q starts at the block
    RelativeBias<T> bias;
    Matrix<T> out;
    T* lse;
    std::int64_t lse_step;
    std::int64_t first_query, queries, keys, key_depth, value_depth;  // queries <= attention_queries
    T scale;
    T* scratch;  // (key_depth + value_depth + attention_keys + 2) * attention_queries
};

template <class T>
struct AttentionBackward {
    Matrix<const T> grad_out, q, k, v, out;  // of this head; k and v start at the chunk
    RelativeBias<T> bias;
    const T* lse;
    std::int64_t lse_step;
    T* grad_q;                 // [blocks of queries][key_depth][attention_queries], not yet times scale; added to
    Matrix<T> grad_k, grad_v;  // start at the chunk; written
    T* grad_bias;              // [2h-1][2w-1], contiguous; added to
    std::int64_t queries, first_key, keys, key_depth, value_depth;  // keys <= attention_chunk
    T scale;
    T* scratch;  // (2 (kd + vd) + 2 B + 2) B + keys (kd + vd), B = 64, kd and vd rounded up to 16
};

template <class T>
struct AttentionKernels {
    void (*forward)(const AttentionForward<T>&);
    void (*backward)(const AttentionBackward<T>&);
};

struct AttentionTable {
    AttentionKernels<float> f32;
    AttentionKernels<double> f64;
};
NORMSCAN_DECLARE_KERNELS(AttentionTable, attention);

}  // namespace normscan::kernels

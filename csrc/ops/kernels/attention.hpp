// Attention of one block of queries of one head, and the gradients of one head.
//
// Everything is kept transposed, lanes are queries: scores [keys][queries], results [dv][queries]. So the maximum and
// the sum over keys are plain vector operations, and K and V are read where they lie, whatever their strides.
#pragma once

#include "ops/kernels/isa.hpp"

namespace normscan::kernels {

constexpr std::int64_t attention_queries = 64;  // a block of queries
constexpr std::int64_t attention_keys = 64;     // a block of keys

template <class T>
struct AttentionForward {
    Matrix<const T> q, k, v;  // of this head; q starts at the block
    Matrix<T> out;
    T* lse;
    std::int64_t lse_step;
    std::int64_t queries, keys, key_depth, value_depth;  // queries <= attention_queries
    T scale;
    T* scratch;  // (key_depth + value_depth + attention_keys + 3) * attention_queries
};

template <class T>
struct AttentionBackward {
    Matrix<const T> grad_out, q, k, v, out;  // of this head
    const T* lse;
    std::int64_t lse_step;
    Matrix<T> grad_q, grad_k, grad_v;
    std::int64_t queries, keys, key_depth, value_depth;
    T scale;
    T* scratch;  // 4 (kd + vd) B + 2 B B + 2 B + keys (kd + vd), B = 64, kd and vd rounded up to 16
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

// What attention asks of its arguments, on every device.
#pragma once

#include "normscan/ops.hpp"

namespace normscan {

struct AttentionSizes {
    std::int64_t images, heads, queries, keys, key_depth, value_depth;
};

AttentionSizes check_attention(const Tensor& q, const Tensor& k, const Tensor& v, const Tensor& out, const Tensor& lse,
                               const GridBias* bias, const Gate* gate);
AttentionSizes check_attention_backward(const Tensor& grad_out, const Tensor& q, const Tensor& k, const Tensor& v,
                                        const Tensor& out, const Tensor& lse, const Tensor& grad_q,
                                        const Tensor& grad_k, const Tensor& grad_v, const GridBias* bias,
                                        const Tensor* grad_bias, const GateGradient* gate);

}  // namespace normscan

// The arguments of attention as Python gives them, for the modules of CPU and GPU.
#pragma once

#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <optional>
#include <string>
#include <utility>

#include "bindings/dlpack.hpp"
#include "normscan/error.hpp"
#include "normscan/ops.hpp"

namespace normscan::bindings {

using Grid = std::optional<std::pair<std::int64_t, std::int64_t>>;

// A tensor or None.
class Optional {
  public:
    Optional(const char* name, const pybind11::object& tensor, const Device& device) {
        if (!tensor.is_none()) imported_.emplace(name, tensor, device);
    }
    const Tensor* get() const { return imported_ ? &imported_->tensor() : nullptr; }

  private:
    std::optional<Imported> imported_;
};

// Two arguments that go together.
inline void check_pair(const char* op, const char* one, bool has_one, const char* other, bool has_other) {
    if (has_one == has_other) return;
    throw Error(Error::Kind::argument, std::string(op) + ": " + (has_one ? one : other) + " is given without " +
                                           (has_one ? other : one) + "; expected both or neither");
}

inline std::optional<GridBias> grid_bias(const char* op, const Tensor* table, const Grid& grid) {
    check_pair(op, "bias", table != nullptr, "grid", grid.has_value());
    return table == nullptr ? std::nullopt : std::optional<GridBias>({*table, grid->first, grid->second});
}

template <class T>
const T* pointer(const std::optional<T>& value) {
    return value ? &*value : nullptr;
}

using Argument = const pybind11::object&;

struct AttentionCall {
    Imported q, k, v, out, lse;
    Optional table, residual, gamma, attended;
    std::optional<GridBias> bias;
    std::optional<Gate> gate;

    AttentionCall(Argument q_, Argument k_, Argument v_, Argument out_, Argument lse_, Argument bias_,
                  Argument residual_, Argument gamma_, Argument attended_, const Grid& grid, const Device& device = {})
        : q("attention: q", q_, device),
          k("attention: k", k_, device),
          v("attention: v", v_, device),
          out("attention: out", out_, device),
          lse("attention: lse", lse_, device),
          table("attention: bias", bias_, device),
          residual("attention: residual", residual_, device),
          gamma("attention: gamma", gamma_, device),
          attended("attention: attended", attended_, device),
          bias(grid_bias("attention", table.get(), grid)) {
        check_pair("attention", "residual", residual.get() != nullptr, "gamma", gamma.get() != nullptr);
        if (residual.get() != nullptr) gate.emplace(Gate{*residual.get(), *gamma.get(), attended.get()});
        if (attended.get() != nullptr && !gate) {
            throw Error(Error::Kind::argument,
                        "attention: attended is given without residual; expected none: it is out");
        }
    }
};

struct AttentionBackwardCall {
    Imported grad_out, q, k, v, out, lse, grad_q, grad_k, grad_v;
    Optional table, grad_bias, gamma, grad_gamma;
    std::optional<GridBias> bias;
    std::optional<GateGradient> gate;

    AttentionBackwardCall(Argument grad_out_, Argument q_, Argument k_, Argument v_, Argument out_, Argument lse_,
                          Argument grad_q_, Argument grad_k_, Argument grad_v_, Argument bias_, Argument grad_bias_,
                          Argument gamma_, Argument grad_gamma_, const Grid& grid, const Device& device = {})
        : grad_out("attention_backward: grad_out", grad_out_, device),
          q("attention_backward: q", q_, device),
          k("attention_backward: k", k_, device),
          v("attention_backward: v", v_, device),
          out("attention_backward: out", out_, device),
          lse("attention_backward: lse", lse_, device),
          grad_q("attention_backward: grad_q", grad_q_, device),
          grad_k("attention_backward: grad_k", grad_k_, device),
          grad_v("attention_backward: grad_v", grad_v_, device),
          table("attention_backward: bias", bias_, device),
          grad_bias("attention_backward: grad_bias", grad_bias_, device),
          gamma("attention_backward: gamma", gamma_, device),
          grad_gamma("attention_backward: grad_gamma", grad_gamma_, device),
          bias(grid_bias("attention_backward", table.get(), grid)) {
        check_pair("attention_backward", "gamma", gamma.get() != nullptr, "grad_gamma", grad_gamma.get() != nullptr);
        if (gamma.get() != nullptr) gate.emplace(GateGradient{*gamma.get(), *grad_gamma.get()});
    }
};

}  // namespace normscan::bindings

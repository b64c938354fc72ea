// Arrays with a memory layout, the same values for the same seed, in memory that ends where the array ends (so that a
// sanitizer sees one element too many), with marks between its elements (so that the test sees a stray write).
#pragma once

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>
#include <memory>
#include <new>
#include <string>
#include <vector>

#include "check.hpp"
#include "normscan/ops.hpp"
#include "normscan/tensor.hpp"

// misaligned: one element past a multiple of 64 bytes. channels_last: of rank 4; others are contiguous.
enum class Layout { contiguous, strided, channels_last, misaligned };
inline constexpr Layout layouts[] = {Layout::contiguous, Layout::strided, Layout::channels_last, Layout::misaligned};

using Shape = std::vector<std::int64_t>;
using Doubles = std::vector<double>;

// An allocator whose memory begins at a multiple of 64 bytes.
template <class T>
struct Aligned {
    using value_type = T;
    T* allocate(std::size_t n) { return static_cast<T*>(::operator new(n * sizeof(T), std::align_val_t{64})); }
    void deallocate(T* p, std::size_t) { ::operator delete(p, std::align_val_t{64}); }
    bool operator==(const Aligned&) const { return true; }
};

template <class T>
class Array {
  public:
    explicit Array(const Shape& shape, Layout layout = Layout::contiguous) {
        tensor_.dtype = normscan::dtype_of<T>;
        tensor_.rank = static_cast<int>(shape.size());
        for (std::size_t i = 0; i < shape.size(); ++i) tensor_.shape[i] = shape[i];
        const bool wide = layout == Layout::strided;
        const std::int64_t first = wide || layout == Layout::misaligned ? 1 : 0;
        std::vector<int> order;  // of axes, the innermost last
        for (int i = 0; i < tensor_.rank; ++i) order.push_back(i);
        if (layout == Layout::channels_last && tensor_.rank == 4) order = {0, 2, 3, 1};
        std::int64_t total = 1;
        for (auto axis = order.rbegin(); axis != order.rend(); ++axis) {
            const auto at = static_cast<std::size_t>(*axis);
            tensor_.stride[at] = tensor_.shape[at] > 1 ? total : 1;
            total *= tensor_.shape[at];
            if (wide) total = axis == order.rbegin() ? total + 3 : total * 2;
        }
        storage_ = std::vector<T, Aligned<T>>(static_cast<std::size_t>(first + total), mark());
        tensor_.data = storage_.data() + first;
    }

    Array& fill(std::uint64_t seed, double low = -1.0, double high = 1.0) {
        for (std::int64_t i = 0; i < count(); ++i) {
            std::uint64_t x = (seed << 32) + static_cast<std::uint64_t>(i) + 0x9e3779b97f4a7c15u;
            x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;  // splitmix64
            x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
            const double share = static_cast<double>((x ^ (x >> 31)) >> 11) * 0x1p-53;
            element(i) = static_cast<T>(low + (high - low) * share);
        }
        return *this;
    }
    void erase() { std::fill(storage_.begin(), storage_.end(), mark()); }

    operator const normscan::Tensor&() const { return tensor_; }
    normscan::Tensor& tensor() { return tensor_; }
    std::int64_t size(int axis) const { return tensor_.size(axis); }
    std::int64_t count() const {
        std::int64_t n = 1;
        for (int i = 0; i < tensor_.rank; ++i) n *= tensor_.size(i);
        return n;
    }
    // In the order of indices, the last one fastest.
    T& element(std::int64_t i) const {
        T* at = tensor_.as<T>();
        for (int axis = tensor_.rank; axis-- > 0; i /= tensor_.size(axis)) {
            at += i % tensor_.size(axis) * tensor_.step(axis);
        }
        return *at;
    }
    std::vector<T> values() const {
        std::vector<T> all;
        for (std::int64_t i = 0; i < count(); ++i) all.push_back(element(i));
        return all;
    }
    Doubles doubles() const {
        const std::vector<T> all = values();
        return Doubles(all.begin(), all.end());
    }
    bool only_elements_written() const {
        std::vector<T, Aligned<T>> rest = storage_;
        for (std::int64_t i = 0; i < count(); ++i)
            rest[static_cast<std::size_t>(&element(i) - storage_.data())] = mark();
        const T m = mark();
        return std::all_of(rest.begin(), rest.end(), [&](const T& x) { return std::memcmp(&x, &m, sizeof m) == 0; });
    }

  private:
    static T mark() {
        if constexpr (std::numeric_limits<T>::has_quiet_NaN) return std::numeric_limits<T>::quiet_NaN();
        return static_cast<T>(0x5a);
    }

    std::vector<T, Aligned<T>> storage_;
    normscan::Tensor tensor_;
};

// found must lie within `bound` (relative to values above 1) of what the loops of the test say, and be NaN where they
// are.
template <class T>
void expect(const std::string& what, const Array<T>& found, const Doubles& wanted, double bound) {
    CHECK(found.only_elements_written());
    CHECK(static_cast<std::size_t>(found.count()) == wanted.size());
    for (std::size_t i = 0; i < wanted.size(); ++i) {
        const double x = static_cast<double>(found.element(static_cast<std::int64_t>(i))), w = wanted[i];
        if (std::isnan(w) ? std::isnan(x) : std::abs(x - w) <= bound * std::max(1.0, std::abs(w))) continue;
        check::fail(__FILE__, __LINE__,
                    what + ": element " + std::to_string(i) + " of " + std::to_string(wanted.size()) + " is " +
                        std::to_string(x) + ", expected " + std::to_string(w));
        return;
    }
}

// A bound for expect: looser where T is float, by `factor` where errors add up.
template <class T>
double bound(double factor = 1.0) {
    return factor * (sizeof(T) == sizeof(float) ? 2e-5 : 1e-11);
}

// Calls with 1, 2 and 3 threads; what is in the outputs must be the same to the bit.
template <class F, class... Outputs>
void with_any_threads(const F& call, Outputs&... outputs) {
    const auto bytes = [&] {
        std::string all;
        const auto add = [&](const auto& values) {
            if (!values.empty()) {
                all.append(reinterpret_cast<const char*>(values.data()), values.size() * sizeof(values[0]));
            }
        };
        (add(outputs.values()), ...);
        return all;
    };
    std::string first;
    for (int threads = 1; threads <= 3; ++threads) {
        normscan::set_threads(threads);
        (outputs.erase(), ...);
        call();
        if (threads == 1) first = bytes();
        CHECK(bytes() == first);
    }
}

// A few elements of a gradient against central differences of `loss`, a function of the dense values of the input.
template <class T, class F>
void expect_gradient(const std::string& what, const Array<T>& gradient, Doubles at, const F& loss, double within) {
    CHECK(gradient.only_elements_written());
    CHECK(static_cast<std::size_t>(gradient.count()) == at.size());
    constexpr double step = 1e-5;
    for (std::size_t k = 0; k < std::min<std::size_t>(5, at.size()); ++k) {
        const std::size_t i = (k * 7919) % at.size();
        const double x = at[i];
        at[i] = x + step;
        const double above = loss(at);
        at[i] = x - step;
        const double slope = (above - loss(at)) / (2.0 * step);
        at[i] = x;
        const double found = static_cast<double>(gradient.element(static_cast<std::int64_t>(i)));
        if (std::abs(found - slope) <= within * std::max(1.0, std::abs(slope))) continue;
        check::fail(__FILE__, __LINE__,
                    what + ": element " + std::to_string(i) + " is " + std::to_string(found) + ", expected " +
                        std::to_string(slope));
    }
}

// A bound for expect_gradient.
template <class T>
double slope_bound(double factor = 1.0) {
    return factor * (sizeof(T) == sizeof(float) ? 2e-4 : 1e-6);
}

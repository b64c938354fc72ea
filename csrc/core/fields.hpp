// Reading a JSON object field by field, with errors that say the path, what was found and what is allowed.
#pragma once

#include <array>
#include <cstdint>
#include <initializer_list>
#include <limits>
#include <string>
#include <string_view>
#include <vector>

#include "core/json.hpp"
#include "normscan/ops.hpp"

namespace normscan {

// A value with its path, e.g. terms[1].metric.
class Field {
  public:
    Field(const json::Value* value, std::string path, std::string document = "spec")
        : value_(value), path_(std::move(path)), document_(std::move(document)) {}

    // Absent or null.
    bool empty() const { return value_ == nullptr || value_->is_null(); }
    bool absent() const { return value_ == nullptr; }
    bool is_text() const { return value_ != nullptr && value_->get_if<std::string>() != nullptr; }
    const std::string& path() const { return path_; }

    std::string text() const;
    double number(double least = -std::numeric_limits<double>::max(),
                  double most = std::numeric_limits<double>::max()) const;
    std::int64_t integer(std::int64_t least, std::int64_t most) const;
    std::vector<Field> items() const;
    const json::Object& object() const;
    // A member of an object that may hold others, too.
    Field operator[](std::string_view key) const;

    template <class Enum, std::size_t n>
    Enum one_of(const std::array<std::string_view, n>& names) const {
        const std::string found = text();
        if (const auto value = named<Enum>(names, found)) return *value;
        fail_choice(found, {names.begin(), names.end()});
    }

    // <document>: <path> <what>
    [[noreturn]] void fail(const std::string& what) const;
    // <document>: <path> is <value>, expected <what>
    [[noreturn]] void fail_expected(const std::string& what) const;

  private:
    [[noreturn]] void fail_choice(const std::string& found, const std::vector<std::string_view>& allowed) const;

    const json::Value* value_;  // null: absent
    std::string path_, document_;
};

// An object whose keys are all known.
class Fields {
  public:
    Fields(const Field& field, std::initializer_list<std::string_view> known);

    Field operator[](std::string_view key) const;

  private:
    Field field_;
};

}  // namespace normscan

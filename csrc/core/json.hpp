// JSON (RFC 8259), strict: no duplicate keys, no NaN or Infinity, nothing after the value, at most 32 levels.
#pragma once

#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

namespace normscan::json {

struct Value;
using Array = std::vector<Value>;
using Object = std::vector<std::pair<std::string, Value>>;  // in the order of the text

struct Value {
    std::variant<std::nullptr_t, bool, double, std::string, Array, Object> data;
    std::string number = {};  // of a number that was parsed: as it stood in the text

    template <class T>
    const T* get_if() const {
        return std::get_if<T>(&data);
    }
    bool is_null() const { return std::holds_alternative<std::nullptr_t>(data); }
};

// Throws Error::Kind::config with `name`, line and column.
Value parse(std::string_view text, std::string_view name);

// Canonical: sorted keys, no spaces, numbers as short as they round-trip. Numbers must be finite.
std::string write(const Value& value);

// The same, with every number that was parsed as it stood: what Python's json writes sorted and without spaces, of a
// text that it wrote. It knows 0.0 from 0, and 0.0001 from 1e-04, which are equal doubles.
std::string write_as_parsed(const Value& value);

std::string number_text(double number);
std::string quoted(std::string_view text);

}  // namespace normscan::json

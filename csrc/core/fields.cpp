#include "core/fields.hpp"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "normscan/error.hpp"

namespace normscan {
namespace {

// Levenshtein's distance.
std::size_t edits(std::string_view a, std::string_view b) {
    std::vector<std::size_t> row(b.size() + 1);
    std::iota(row.begin(), row.end(), std::size_t{0});
    for (std::size_t i = 0; i < a.size(); ++i) {
        std::size_t diagonal = row[0];
        row[0] = i + 1;
        for (std::size_t j = 0; j < b.size(); ++j) {
            const std::size_t replaced = diagonal + (a[i] != b[j]);
            diagonal = row[j + 1];
            row[j + 1] = std::min({replaced, row[j] + 1, row[j + 1] + 1});
        }
    }
    return row.back();
}

// `; did you mean "metric"?`, or nothing where no name is near.
std::string suggestion(std::string_view found, const std::vector<std::string_view>& allowed) {
    const auto nearer = [&](std::string_view a, std::string_view b) { return edits(found, a) < edits(found, b); };
    const auto best = std::min_element(allowed.begin(), allowed.end(), nearer);
    if (best == allowed.end() || edits(found, *best) > std::max<std::size_t>(2, best->size() / 2)) return "";
    return "; did you mean \"" + std::string(*best) + "\"?";
}

std::string joined(const std::vector<std::string_view>& names) {
    std::string text;
    for (const std::string_view name : names) text.append(text.empty() ? "" : ", ").append(name);
    return text;
}

}  // namespace

void Field::fail(const std::string& what) const {
    throw Error(Error::Kind::config, document_ + ": " + (path_.empty() ? "the document" : path_) + " " + what);
}

void Field::fail_expected(const std::string& what) const {
    if (absent()) fail("is missing, expected " + what);
    constexpr std::size_t longest = 80;
    std::string found = json::write(*value_);
    if (found.size() > longest) found = found.substr(0, longest) + "...";
    fail("is " + found + ", expected " + what);
}

void Field::fail_choice(const std::string& found, const std::vector<std::string_view>& allowed) const {
    fail("is " + json::quoted(found) + ", expected one of " + joined(allowed) + suggestion(found, allowed));
}

std::string Field::text() const {
    const auto* const text = value_ != nullptr ? value_->get_if<std::string>() : nullptr;
    if (text == nullptr || text->empty()) fail_expected("a text");
    return *text;
}

double Field::number(double least, double most) const {
    const auto* const number = value_ != nullptr ? value_->get_if<double>() : nullptr;
    if (number != nullptr && *number >= least && *number <= most) return *number;
    constexpr double unbounded = std::numeric_limits<double>::max();
    std::string expected = "a number";
    if (least > -unbounded && most < unbounded) {
        expected += " in " + json::number_text(least) + ".." + json::number_text(most);
    } else if (least > -unbounded) {
        expected += " >= " + json::number_text(least);
    }
    fail_expected(expected);
}

std::int64_t Field::integer(std::int64_t least, std::int64_t most) const {
    const auto* const number = value_ != nullptr ? value_->get_if<double>() : nullptr;
    if (number == nullptr || *number != std::trunc(*number) || *number < static_cast<double>(least) ||
        *number > static_cast<double>(most)) {
        fail_expected("a whole number in " + std::to_string(least) + ".." + std::to_string(most));
    }
    return static_cast<std::int64_t>(*number);
}

std::vector<Field> Field::items() const {
    const auto* const array = value_ != nullptr ? value_->get_if<json::Array>() : nullptr;
    if (array == nullptr) fail_expected("a list");
    std::vector<Field> fields;
    for (std::size_t i = 0; i < array->size(); ++i) {
        fields.emplace_back(&(*array)[i], path_ + "[" + std::to_string(i) + "]", document_);
    }
    return fields;
}

const json::Object& Field::object() const {
    const auto* const object = value_ != nullptr ? value_->get_if<json::Object>() : nullptr;
    if (object == nullptr) fail_expected("an object");
    return *object;
}

Field Field::operator[](std::string_view key) const {
    const std::string path = (path_.empty() ? "" : path_ + ".") + std::string(key);
    for (const auto& [name, value] : object()) {
        if (name == key) return {&value, path, document_};
    }
    return {nullptr, path, document_};
}

Fields::Fields(const Field& field, std::initializer_list<std::string_view> known) : field_(field) {
    const std::vector<std::string_view> allowed(known);
    for (const auto& member : field_.object()) {
        const std::string& key = member.first;
        if (std::find(allowed.begin(), allowed.end(), key) != allowed.end()) continue;
        field_[key].fail("is not a field" + suggestion(key, allowed) + " (allowed here: " + joined(allowed) + ")");
    }
}

Field Fields::operator[](std::string_view key) const {
    return field_[key];
}

}  // namespace normscan

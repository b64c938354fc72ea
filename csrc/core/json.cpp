#include "core/json.hpp"

#include <algorithm>
#include <array>
#include <charconv>
#include <cmath>
#include <cstdint>
#include <unordered_set>

#include "normscan/error.hpp"

namespace normscan::json {
namespace {

constexpr int deepest = 32;

void append_utf8(std::string& to, std::uint32_t code) {
    const auto byte = [&](std::uint32_t b) { to.push_back(static_cast<char>(b)); };
    if (code < 0x80) {
        byte(code);
    } else if (code < 0x800) {
        byte(0xC0 | (code >> 6));
        byte(0x80 | (code & 0x3F));
    } else if (code < 0x10000) {
        byte(0xE0 | (code >> 12));
        byte(0x80 | ((code >> 6) & 0x3F));
        byte(0x80 | (code & 0x3F));
    } else {
        byte(0xF0 | (code >> 18));
        byte(0x80 | ((code >> 12) & 0x3F));
        byte(0x80 | ((code >> 6) & 0x3F));
        byte(0x80 | (code & 0x3F));
    }
}

class Parser {
  public:
    Parser(std::string_view text, std::string_view name) : text_(text), name_(name) {}

    Value document() {
        Value result = value(0);
        skip_space();
        if (at_ != text_.size()) fail("expected the end of the text, found " + here());
        return result;
    }

  private:
    [[noreturn]] void fail(const std::string& what) const {
        const std::string_view before = text_.substr(0, at_);
        const auto line = 1 + std::count(before.begin(), before.end(), '\n');
        const std::size_t start = before.rfind('\n');
        const std::size_t column = start == std::string_view::npos ? at_ + 1 : at_ - start;
        throw Error(Error::Kind::config, std::string(name_) + ": line " + std::to_string(line) + ", column " +
                                             std::to_string(column) + ": " + what);
    }

    std::string here() const {
        if (at_ >= text_.size()) return "the end of the text";
        const auto c = static_cast<unsigned char>(text_[at_]);
        return c < 0x20 || c >= 0x7F ? "byte " + std::to_string(c) : std::string("'") + text_[at_] + "'";
    }

    void skip_space() {
        while (at_ < text_.size() && std::string_view(" \t\r\n").find(text_[at_]) != std::string_view::npos) ++at_;
    }

    bool take(char c) {
        if (at_ >= text_.size() || text_[at_] != c) return false;
        ++at_;
        return true;
    }

    bool digit() const { return at_ < text_.size() && text_[at_] >= '0' && text_[at_] <= '9'; }

    void expect(char c, const char* where) {
        skip_space();
        if (!take(c)) fail(std::string("expected '") + c + "' " + where + ", found " + here());
    }

    Value value(int depth) {
        if (depth > deepest) fail("more than " + std::to_string(deepest) + " levels of nesting");
        skip_space();
        if (take('{')) return {object(depth)};
        if (take('[')) return {array(depth)};
        if (take('"')) return {string()};
        if (literal("true")) return {true};
        if (literal("false")) return {false};
        if (literal("null")) return {nullptr};
        if (digit() || (at_ < text_.size() && text_[at_] == '-')) return number();
        fail("expected a value, found " + here());
    }

    bool literal(std::string_view word) {
        if (text_.substr(at_, word.size()) != word) return false;
        at_ += word.size();
        return true;
    }

    Object object(int depth) {
        Object members;
        std::unordered_set<std::string> keys;
        skip_space();
        if (take('}')) return members;
        do {
            expect('"', "before a key");
            const std::size_t start = at_;
            std::string key = string();
            if (!keys.insert(key).second) {
                at_ = start;
                fail("key " + quoted(key) + " is there twice");
            }
            expect(':', "after a key");
            Value member = value(depth + 1);
            members.emplace_back(std::move(key), std::move(member));
            skip_space();
        } while (take(','));
        expect('}', "or ',' after a member");
        return members;
    }

    Array array(int depth) {
        Array items;
        skip_space();
        if (take(']')) return items;
        do {
            items.push_back(value(depth + 1));
            skip_space();
        } while (take(','));
        expect(']', "or ',' after an item");
        return items;
    }

    void digits() {
        if (!digit()) fail("expected a digit, found " + here());
        while (digit()) ++at_;
    }

    Value number() {
        const std::size_t start = at_;
        take('-');
        if (take('0')) {
            if (digit()) fail("a number must not begin with 0");
        } else {
            digits();
        }
        if (take('.')) digits();
        if (take('e') || take('E')) {
            if (!take('+')) take('-');
            digits();
        }
        double result = 0.0;
        const auto read = std::from_chars(text_.data() + start, text_.data() + at_, result);
        if (read.ec != std::errc() || !std::isfinite(result)) {
            const std::string found(text_.substr(start, at_ - start));
            at_ = start;
            fail("number " + found + " does not fit a double");
        }
        return {result, std::string(text_.substr(start, at_ - start))};
    }

    std::uint32_t hex4() {
        std::uint32_t code = 0;
        const char* const from = text_.data() + at_;
        const char* const end = from + std::min<std::size_t>(4, text_.size() - at_);
        const auto read = std::from_chars(from, end, code, 16);
        if (read.ec != std::errc() || read.ptr != from + 4) fail("expected four hexadecimal digits after \\u");
        at_ += 4;
        return code;
    }

    void escape(std::string& to) {
        constexpr std::string_view plain = "\"\\/bfnrt", meaning = "\"\\/\b\f\n\r\t";
        if (take('u')) {
            std::uint32_t code = hex4();
            if (code >= 0xD800 && code < 0xDC00 && literal("\\u")) {
                const std::uint32_t low = hex4();
                if (low < 0xDC00 || low > 0xDFFF) fail("a surrogate without its second half");
                code = 0x10000 + ((code - 0xD800) << 10) + (low - 0xDC00);
            }
            if (code >= 0xD800 && code <= 0xDFFF) fail("a surrogate without its other half");
            return append_utf8(to, code);
        }
        const std::size_t which = at_ < text_.size() ? plain.find(text_[at_]) : std::string_view::npos;
        if (which == std::string_view::npos) fail("unknown escape, found " + here());
        to.push_back(meaning[which]);
        ++at_;
    }

    std::string string() {
        std::string result;
        while (true) {
            if (at_ >= text_.size()) fail("a string without its end");
            if (take('"')) return result;
            if (take('\\')) {
                escape(result);
            } else {
                if (static_cast<unsigned char>(text_[at_]) < 0x20) fail("a control character in a string; escape it");
                result.push_back(text_[at_++]);
            }
        }
    }

    std::string_view text_, name_;
    std::size_t at_ = 0;
};

void append(std::string& to, const Value& value, bool as_parsed);

void append(std::string& to, const Object& object, bool as_parsed) {
    std::vector<const Object::value_type*> members;
    for (const auto& member : object) members.push_back(&member);
    std::sort(members.begin(), members.end(), [](const auto* a, const auto* b) { return a->first < b->first; });
    to.push_back('{');
    for (const auto* member : members) {
        if (member != members.front()) to.push_back(',');
        to.append(quoted(member->first)).push_back(':');
        append(to, member->second, as_parsed);
    }
    to.push_back('}');
}

void append(std::string& to, const Array& array, bool as_parsed) {
    to.push_back('[');
    for (const Value& item : array) {
        if (&item != &array.front()) to.push_back(',');
        append(to, item, as_parsed);
    }
    to.push_back(']');
}

void append(std::string& to, const Value& value, bool as_parsed) {
    if (const auto* object = value.get_if<Object>()) return append(to, *object, as_parsed);
    if (const auto* array = value.get_if<Array>()) return append(to, *array, as_parsed);
    if (const auto* text = value.get_if<std::string>()) {
        to.append(quoted(*text));
    } else if (const auto* number = value.get_if<double>()) {
        to.append(as_parsed && !value.number.empty() ? value.number : number_text(*number));
    } else if (const auto* truth = value.get_if<bool>()) {
        to.append(*truth ? "true" : "false");
    } else {
        to.append("null");
    }
}

}  // namespace

Value parse(std::string_view text, std::string_view name) {
    return Parser(text, name).document();
}

std::string write(const Value& value) {
    std::string text;
    append(text, value, false);
    return text;
}

std::string write_as_parsed(const Value& value) {
    std::string text;
    append(text, value, true);
    return text;
}

std::string number_text(double number) {
    constexpr double exact = 9007199254740992.0;  // 2^53: whole numbers below are written without an exponent
    std::array<char, 32> buffer{};
    const bool whole = std::abs(number) < exact && number == std::trunc(number);
    const auto end = whole ? std::to_chars(buffer.begin(), buffer.end(), static_cast<std::int64_t>(number)).ptr
                           : std::to_chars(buffer.begin(), buffer.end(), number).ptr;
    return {buffer.begin(), end};
}

std::string quoted(std::string_view text) {
    constexpr std::string_view hex = "0123456789abcdef", special = "\"\\\b\f\n\r\t", letters = "\"\\bfnrt";
    std::string result = "\"";
    for (const char c : text) {
        if (const std::size_t which = special.find(c); which != std::string_view::npos) {
            result.append({'\\', letters[which]});
        } else if (static_cast<unsigned char>(c) < 0x20) {
            const auto byte = static_cast<unsigned char>(c);
            result.append("\\u00").append({hex[byte >> 4], hex[byte & 15]});
        } else {
            result.push_back(c);
        }
    }
    return result + '"';
}

}  // namespace normscan::json

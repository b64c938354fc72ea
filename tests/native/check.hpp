// TEST(name) { CHECK(condition); }, and nothing else: the tests of the core need no library.
#pragma once

#include <atomic>
#include <cstdio>
#include <string>
#include <vector>

#include "normscan/error.hpp"

namespace check {

struct Test {
    const char* name;
    void (*run)();
};

inline std::vector<Test>& tests() {
    static std::vector<Test> all;
    return all;
}

struct Registered {
    Registered(const char* name, void (*run)()) { tests().push_back({name, run}); }
};

inline std::atomic<int> failures{0};

inline void fail(const char* file, int line, const std::string& text) {
    if (failures.fetch_add(1) < 50) std::fprintf(stderr, "%s:%d: %s\n", file, line, text.c_str());
}

// The message of the normscan::Error that f throws; empty where it throws none.
template <class F>
std::string message_of(F&& f) {
    try {
        f();
    } catch (const normscan::Error& error) {
        return error.what();
    }
    return "";
}

// Whether `part` is in `text`; says what is, where it is not.
inline bool has(const std::string& text, const std::string& part) {
    if (text.find(part) != std::string::npos) return true;
    std::fprintf(stderr, "found \"%s\", expected \"%s\" in it\n", text.c_str(), part.c_str());
    return false;
}

}  // namespace check

#define TEST(name)                                              \
    static void name();                                         \
    static const ::check::Registered name##_here(#name, &name); \
    static void name()
#define CHECK(condition) \
    if (!(condition)) ::check::fail(__FILE__, __LINE__, #condition)

#include "core/files.hpp"

#include <dirent.h>
#include <dlfcn.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <memory>

#include "normscan/error.hpp"

namespace normscan {
namespace {

[[noreturn]] void refuse(const std::string& what) {
    throw Error(Error::Kind::bundle, what);
}

// Closed at the end of its scope.
struct Descriptor {
    int number;
    explicit Descriptor(int n) : number(n) {}
    Descriptor(const Descriptor&) = delete;
    Descriptor& operator=(const Descriptor&) = delete;
    ~Descriptor() {
        if (number >= 0) ::close(number);
    }
};

}  // namespace

std::vector<std::string> names_in(const std::string& folder) {
    const std::unique_ptr<DIR, int (*)(DIR*)> open(::opendir(folder.c_str()), [](DIR* d) { return ::closedir(d); });
    if (open == nullptr) refuse(folder + " is no folder, expected a bundle (" + std::strerror(errno) + ")");
    std::vector<std::string> names;
    while (const dirent* const entry = ::readdir(open.get())) {
        const std::string name = entry->d_name;
        if (name != "." && name != "..") names.push_back(name);
    }
    std::sort(names.begin(), names.end());
    return names;
}

std::string read_file(const std::string& path, std::uint64_t most) {
    const Descriptor file(::open(path.c_str(), O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC));
    const std::string remedy = "; export the bundle again";
    if (file.number < 0) refuse(path + " is missing or no plain file (" + std::strerror(errno) + ")" + remedy);
    struct stat status{};
    if (::fstat(file.number, &status) != 0 || !S_ISREG(status.st_mode)) {
        refuse(path + " is missing or no plain file" + remedy);
    }
    const auto size = static_cast<std::uint64_t>(status.st_size);
    if (size > most) {
        refuse(path + " has " + std::to_string(size) + " bytes, expected at most " + std::to_string(most));
    }
    std::string bytes(static_cast<std::size_t>(size), '\0');
    std::size_t at = 0;
    while (at < bytes.size()) {
        const ssize_t got = ::read(file.number, bytes.data() + at, bytes.size() - at);
        if (got < 0 && errno == EINTR) continue;
        if (got < 0) refuse(path + " cannot be read (" + std::strerror(errno) + ")");
        if (got == 0) refuse(path + " became shorter while it was read");
        at += static_cast<std::size_t>(got);
    }
    return bytes;
}

std::string own_folder() {
    Dl_info found{};
    if (::dladdr(reinterpret_cast<const void*>(&own_folder), &found) == 0 || found.dli_fname == nullptr) return ".";
    const std::unique_ptr<char, void (*)(void*)> resolved(::realpath(found.dli_fname, nullptr), std::free);
    const std::string path = resolved == nullptr ? found.dli_fname : resolved.get();
    const std::size_t slash = path.rfind('/');
    return slash == std::string::npos ? "." : path.substr(0, slash);
}

void* library_symbol(const std::string& path, const char* name) {
    void* const library = ::dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL | RTLD_NODELETE);
    void* const symbol = library == nullptr ? nullptr : ::dlsym(library, name);
    if (symbol != nullptr) return symbol;
    const char* const reason = ::dlerror();
    throw Error(Error::Kind::engine, reason == nullptr ? path + " has no " + name : reason);
}

}  // namespace normscan

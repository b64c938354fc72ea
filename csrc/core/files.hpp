// Files, folders and shared libraries: the only place in the SDK that knows an operating system.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace normscan {

// The names in a folder, sorted. Throws Error::Kind::bundle where there is no such folder.
std::vector<std::string> names_in(const std::string& folder);

// The bytes of a plain file; a link, a pipe or more than `most` bytes are refused unread, as Error::Kind::bundle.
std::string read_file(const std::string& path, std::uint64_t most);

// The folder of the library, or of the program, that this code was linked into.
std::string own_folder();

// A function of a shared library, which stays loaded until the process ends: threads of what it brought with it may
// outlive any one use. Throws Error::Kind::engine: what the system says.
void* library_symbol(const std::string& path, const char* name);

}  // namespace normscan

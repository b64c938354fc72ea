#include "core/safetensors.hpp"

#include <algorithm>
#include <cstdint>
#include <cstring>

#include "core/fields.hpp"
#include "normscan/error.hpp"

namespace normscan {
namespace {

constexpr std::uint64_t longest_header = 16u << 20;
constexpr std::int64_t largest_side = std::int64_t{1} << 31;
constexpr std::array<std::string_view, 2> dtypes = {"F32", "F64"};  // in the order of DType

// Where a tensor lies in the data.
struct Entry {
    std::string name;
    Tensor tensor;  // without its address
    std::int64_t begin, end;
};

Entry read_entry(const std::string& name, const Field& field, std::int64_t data_bytes) {
    const Fields f(field, {"dtype", "shape", "data_offsets"});
    Entry entry{name, {}, 0, 0};
    entry.tensor.dtype = f["dtype"].one_of<DType>(dtypes);
    const std::vector<Field> shape = f["shape"].items(), offsets = f["data_offsets"].items();
    if (shape.size() > static_cast<std::size_t>(Tensor::max_rank)) {
        f["shape"].fail("has " + std::to_string(shape.size()) + " dimensions, expected at most " +
                        std::to_string(Tensor::max_rank));
    }
    if (offsets.size() != 2) f["data_offsets"].fail_expected("two numbers, where the tensor begins and ends");
    entry.begin = offsets[0].integer(0, data_bytes);
    entry.end = offsets[1].integer(entry.begin, data_bytes);

    // Backwards, for the strides; a product beyond the file's own size ends it, before it can overflow.
    std::int64_t bytes = entry.tensor.dtype == DType::float64 ? 8 : 4, stride = 1;
    entry.tensor.rank = static_cast<int>(shape.size());
    for (std::size_t i = shape.size(); i-- > 0;) {
        const std::int64_t n = shape[i].integer(0, largest_side);
        entry.tensor.shape[i] = n;
        entry.tensor.stride[i] = n > 1 ? stride : 1;
        stride *= n;
        if (n > 0 && bytes > data_bytes / n) {
            f["shape"].fail("takes more than the " + std::to_string(data_bytes) + " bytes of data");
        }
        bytes *= n;
    }
    if (bytes != entry.end - entry.begin) {
        f["data_offsets"].fail("span " + std::to_string(entry.end - entry.begin) + " bytes, the shape takes " +
                               std::to_string(bytes));
    }
    return entry;
}

// The entries in the order of the data, which they fill without a gap and without sharing a byte.
std::vector<Entry> read_header(std::string_view header, std::int64_t data_bytes, const std::string& name) {
    const json::Value root = json::parse(header, name);
    std::vector<Entry> entries;
    for (const auto& [key, value] : Field(&root, "", name).object()) {
        if (key != "__metadata__") entries.push_back(read_entry(key, Field(&value, key, name), data_bytes));
    }
    const auto before = [](const Entry& a, const Entry& b) {
        return a.begin != b.begin ? a.begin < b.begin : a.end < b.end;
    };
    std::sort(entries.begin(), entries.end(), before);
    std::int64_t at = 0;
    for (const Entry& entry : entries) {
        if (entry.begin != at) {
            throw Error(Error::Kind::bundle, name + ": " + entry.name + " begins at byte " +
                                                 std::to_string(entry.begin) + ", expected " + std::to_string(at));
        }
        at = entry.end;
    }
    if (at != data_bytes) {
        throw Error(Error::Kind::bundle, name + ": the tensors end at byte " + std::to_string(at) +
                                             " of the data, which has " + std::to_string(data_bytes));
    }
    return entries;
}

}  // namespace

Safetensors::Safetensors(std::string_view bytes, const std::string& name) {
    constexpr std::size_t prefix = 8;
    if (bytes.size() < prefix) {
        throw Error(Error::Kind::bundle, name + " has " + std::to_string(bytes.size()) + " bytes, expected at least 8");
    }
    std::uint64_t length = 0;  // little-endian
    for (std::size_t i = prefix; i-- > 0;) length = length << 8 | static_cast<unsigned char>(bytes[i]);
    const std::uint64_t most = std::min<std::uint64_t>(longest_header, bytes.size() - prefix);
    if (length > most) {
        throw Error(Error::Kind::bundle, name + ": the header has " + std::to_string(length) +
                                             " bytes, expected at most " + std::to_string(most));
    }
    const std::string_view data = bytes.substr(prefix + static_cast<std::size_t>(length));
    std::vector<Entry> entries;
    try {
        entries = read_header(bytes.substr(prefix, static_cast<std::size_t>(length)),
                              static_cast<std::int64_t>(data.size()), name);
    } catch (const Error& error) {
        throw Error(Error::Kind::bundle, error.what());
    }
    for (Entry& entry : entries) {
        const std::string_view part =
            data.substr(static_cast<std::size_t>(entry.begin), static_cast<std::size_t>(entry.end - entry.begin));
        std::vector<std::byte>& copy = memory_.emplace_back(part.size());
        if (!part.empty()) std::memcpy(copy.data(), part.data(), part.size());
        entry.tensor.data = copy.data();
        entry.tensor.read_only = true;
        tensors_.emplace(entry.name, entry.tensor);
    }
}

}  // namespace normscan

#include "core/bundle.hpp"

#include <algorithm>
#include <limits>

#include "core/fields.hpp"
#include "core/files.hpp"
#include "core/sha256.hpp"
#include "normscan/error.hpp"
#include "ops/parallel.hpp"

namespace normscan {
namespace {

constexpr std::int64_t schema = 1;
constexpr std::array<const char*, 4> file_names = {"card.md", "golden.safetensors", "model.onnx", "stats.safetensors"};
constexpr const char* all_names = "manifest.json, card.md, golden.safetensors, model.onnx, stats.safetensors";
constexpr std::uint64_t manifest_bytes = 16u << 20;         // a larger manifest is refused unread
constexpr std::int64_t file_bytes = std::int64_t{4} << 30;  // and so is any other file
constexpr double largest = std::numeric_limits<double>::max();

[[noreturn]] void refuse(const std::string& what) {
    throw Error(Error::Kind::bundle, what);
}

bool is_file_name(std::string_view name) {
    return std::find(file_names.begin(), file_names.end(), name) != file_names.end();
}

// The manifest's own hash is over the rest of it, sorted and without spaces.
void check_own_hash(const json::Value& root, const Field& manifest, const std::string& path) {
    json::Value rest = root;
    std::erase_if(std::get<json::Object>(rest.data), [](const auto& member) { return member.first == "sha256"; });
    const std::string expected = sha256(json::write_as_parsed(rest)), found = manifest["sha256"].text();
    if (found != expected) refuse(path + " has been altered: sha256 is " + found + ", its content gives " + expected);
}

json::Value read_manifest(const std::string& path) {
    json::Value root = json::parse(read_file(path, manifest_bytes), path);
    const Field manifest(&root, "", path);
    const json::Value* found = nullptr;
    for (const auto& [key, value] : manifest.object()) {
        if (key == "schema") found = &value;
    }
    const double* const number = found == nullptr ? nullptr : found->get_if<double>();
    if (number == nullptr || *number != static_cast<double>(schema)) {
        manifest["schema"].fail_expected(std::to_string(schema) + "; a newer normscan may be needed");
    }
    check_own_hash(root, manifest, path);
    return root;
}

// Of what the SDK itself does not use: only that it is there, as everything that reads a bundle asks.
void check_rest(const Field& manifest) {
    for (const char* name : {"family", "paper", "normscan", "notice"}) {
        if (!manifest[name].is_text()) manifest[name].fail_expected("a text");
    }
    for (const Field& digest : manifest["training"]["seen"].items()) digest.text();
    manifest["training"]["counts"].object();
    const std::vector<Field> limits = manifest["precision"]["limits"].items();
    if (limits.size() != 3) manifest["precision"]["limits"].fail_expected("three limits of errors");
    for (const Field& limit : limits) {
        if (!(limit.number() > 0.0)) limit.fail_expected("a number > 0");
    }
}

std::string read_checked(const std::string& path, const Field& entry) {
    const std::int64_t size = entry["bytes"].integer(0, file_bytes);
    const std::string expected = entry["sha256"].text();
    std::string bytes = read_file(path, static_cast<std::uint64_t>(file_bytes));
    if (bytes.size() != static_cast<std::uint64_t>(size)) {
        refuse(path + " has " + std::to_string(bytes.size()) + " bytes, the manifest says " + std::to_string(size) +
               "; copy the bundle again");
    }
    if (const std::string found = sha256(bytes); found != expected) {
        refuse(path + " has been altered: sha256 " + found + ", the manifest says " + expected);
    }
    return bytes;
}

std::map<std::string, std::string> read_files(const std::string& folder, const Field& entries) {
    for (const auto& member : entries.object()) {
        if (!is_file_name(member.first)) entries[member.first].fail(std::string("is not one of ") + all_names);
    }
    std::array<std::string, file_names.size()> contents;
    parallel_for(file_names.size(), [&](std::int64_t i) {
        const auto at = static_cast<std::size_t>(i);
        contents[at] = read_checked(folder + "/" + file_names[at], entries[file_names[at]]);
    });
    std::map<std::string, std::string> files;
    for (std::size_t i = 0; i < file_names.size(); ++i) files.emplace(file_names[i], std::move(contents[i]));
    return files;
}

// Whatever is wrong in the bundle is of one kind to its user.
template <class F>
auto told(F&& body) {
    try {
        return body();
    } catch (const Error& error) {
        refuse(error.what());
    }
}

}  // namespace

Bundle Bundle::open(const std::string& folder) {
    Bundle bundle;
    bundle.folder_ = folder;
    for (const std::string& name : names_in(folder)) {
        if (name != "manifest.json" && !is_file_name(name)) {
            refuse(folder + " holds \"" + name + "\", expected only " + all_names);
        }
    }
    const std::string path = folder + "/manifest.json";
    told([&] {
        const json::Value root = read_manifest(path);
        const Field manifest(&root, "", path);
        check_rest(manifest);
        for (const Field& name : manifest["outputs"].items()) bundle.outputs_.push_back(name.text());
        bundle.spread_ = manifest["spread"].number();
        if (!(bundle.spread_ > 0.0)) manifest["spread"].fail_expected("a number > 0");
        const std::vector<Field> scale = manifest["map_scale"].items();
        if (scale.size() != 2) manifest["map_scale"].fail_expected("two numbers, the lower first");
        bundle.map_scale_[0] = scale[0].number();
        bundle.map_scale_[1] = scale[1].number(bundle.map_scale_[0], largest);
        const Field precision = manifest["precision"], accepted = precision["accepted"];
        precision["name"].one_of<int>(precisions);
        bundle.precision_ = precision["name"].text();
        if (!accepted.empty()) bundle.accepted_engine_ = accepted["engine"].text();
        bundle.notice_ = manifest["notice"].text();
        bundle.files_ = read_files(folder, manifest["files"]);
        json::Value spec;
        for (const auto& [key, value] : manifest.object()) {
            if (key == "spec") spec = value;
        }
        try {
            bundle.spec_ = ScoringSpec::parse(json::write(spec));
        } catch (const Error& error) {
            refuse(path + ": " + error.what());
        }
    });
    return bundle;
}

Scorer Bundle::scorer() const {
    const std::string path = folder_ + "/stats.safetensors";
    const Safetensors statistics(files_.at("stats.safetensors"), path);
    try {
        return Scorer(spec_, statistics.tensors());
    } catch (const Error& error) {
        refuse(path + " does not fit the spec: " + error.what());
    }
}

Safetensors Bundle::golden() const {
    const std::string path = folder_ + "/golden.safetensors";
    Safetensors golden(files_.at("golden.safetensors"), path);
    std::vector<std::string> wanted = {"x", "map", "score"};
    for (const std::string& name : outputs_) wanted.push_back("output." + name);
    for (const std::string& name : wanted) {
        if (!golden.tensors().contains(name)) refuse(path + " has no " + name);
    }
    if (golden.tensors().size() != wanted.size()) {
        refuse(path + " holds " + std::to_string(golden.tensors().size()) + " tensors, expected " +
               std::to_string(wanted.size()));
    }
    return golden;
}

}  // namespace normscan

// A bundle that a test writes: a spec with known scores, and a model for the fake engine (csrc/engines/fake.cpp).
#pragma once

#include <filesystem>
#include <fstream>
#include <map>
#include <string>

#include "core/json.hpp"
#include "core/sha256.hpp"

// A folder that is gone at the end of the scope.
class Folder {
  public:
    Folder() {
        std::string name = (std::filesystem::temp_directory_path() / "normscan-XXXXXX").string();
        path_ = ::mkdtemp(name.data());
    }
    Folder(const Folder&) = delete;
    Folder& operator=(const Folder&) = delete;
    ~Folder() { std::filesystem::remove_all(path_); }

    std::string path(const std::string& name = "") const { return name.empty() ? path_ : path_ + "/" + name; }

    void write(const std::string& name, const std::string& content) const {
        std::ofstream(path(name), std::ios::binary) << content;
    }

  private:
    std::string path_;
};

// A safetensors file from its header and data.
inline std::string safetensors(const std::string& header, const std::string& data = "") {
    std::string file;
    for (unsigned shift = 0; shift < 64; shift += 8) file.push_back(static_cast<char>(header.size() >> shift));
    return file + header + data;
}

// Fields of the manifest as JSON, to be changed before it is written.
using Manifest = std::map<std::string, std::string>;

// The network gives its input as "image" and half of it as "reconstruction": a picture's map is half of its pixels'
// mean over the channels, its score the mean of that.
struct BundleParts {
    std::string model = "fake 1\nimage 1 0\nreconstruction 0.5 0\n";
    std::map<std::string, std::string> files = {
        {"card.md", "card"}, {"golden.safetensors", safetensors("{}")}, {"stats.safetensors", safetensors("{}")}};
    Manifest manifest = {
        {"schema", "1"},
        {"normscan", R"("0.1.0")"},
        {"family", R"("test")"},
        {"paper", R"("none")"},
        {"notice", "\"caf\u00e9\""},
        {"spec", R"({"schema": 1, "family": "test",
          "input": {"height": 8, "width": 12, "channels": 3, "resize": "stretch", "mean": [0, 0, 0], "std": [1, 1, 1]},
          "terms": [{"op": "distance", "of": ["reconstruction", "image"], "metric": "l1"}], "fuse": "sum",
          "pool_at": "term", "map": {"size": "input", "blur_sigma": 0}, "group": null,
          "calibration": {"rule": "order_statistic", "threshold": 0.25, "n": 20, "target_specificity": 0.95,
          "interval": [0.75, 1]}})"},
        {"outputs", R"(["image", "reconstruction"])"},
        {"spread", "1e-05"},
        {"map_scale", "[0.0, 0.5]"},
        {"precision", R"({"name": "fp32", "limits": [0.001, 0.01, 0.001], "kept": [], "accepted": null})"},
        {"training", R"({"seen": [], "counts": {}})"},
    };

    // Hashes everything, and so makes whatever was changed above a bundle that is not damaged.
    void write(const Folder& folder) {
        files["model.onnx"] = model;
        std::string entries;
        for (const auto& [name, content] : files) {
            folder.write(name, content);
            entries += (entries.empty() ? "\"" : ", \"") + name + "\": {\"bytes\": " + std::to_string(content.size()) +
                       ", \"sha256\": \"" + normscan::sha256(content) + "\"}";
        }
        manifest.try_emplace("files", "{" + entries + "}");
        std::string fields;
        for (const auto& [name, value] : manifest) fields += "\"" + name + "\": " + value + ",\n";
        const std::string whole = "{" + fields.substr(0, fields.size() - 2) + "}";
        const std::string own = normscan::sha256(normscan::json::write_as_parsed(normscan::json::parse(whole, "test")));
        folder.write("manifest.json", "{" + fields + "\"sha256\": \"" + own + "\"}\n");
    }
};

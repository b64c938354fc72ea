// Bundles, whole and damaged, and what they are read with.
#include "core/bundle.hpp"

#include <cstdlib>
#include <cstring>

#include "bundles.hpp"
#include "check.hpp"
#include "core/files.hpp"
#include "core/sha256.hpp"

using namespace normscan;

namespace {

std::string refusal(const std::string& folder) {
    return check::message_of([&] { Bundle::open(folder).scorer(); });
}

std::string refusal(BundleParts parts) {
    const Folder folder;
    parts.write(folder);
    return refusal(folder.path());
}

// The examples of FIPS 180-2, B.1 to B.3, and lengths around a block.
TEST(sha256_of_known_texts) {
    CHECK(sha256("") == "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
    CHECK(sha256("abc") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
    CHECK(sha256("abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq") ==
          "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1");
    CHECK(sha256(std::string(1000000, 'a')) == "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0");
    CHECK(sha256(std::string(55, 'a')) == "9f4390f8d30c2dd92ec9f095b65e2b9ae9b0a925a5258e241c9f1e910f734318");
    CHECK(sha256(std::string(56, 'a')) == "b35439a4ac6f0948b6d6f9e3c6af0f5f590ce20f1bde7090ef7970686ec6738a");
    CHECK(sha256(std::string(64, 'a')) == "ffe054fe7ae0cb6dc65c3af9b61d5209f439851db43d0ba5997337df154668eb");
}

TEST(safetensors_whole) {
    const double numbers[] = {1.5, -2.0};
    const float more[] = {3.0f, 4.0f, 5.0f};
    std::string data(sizeof numbers + sizeof more, '\0');
    std::memcpy(data.data(), more, sizeof more);
    std::memcpy(data.data() + sizeof more, numbers, sizeof numbers);  // not at a multiple of 8
    const Safetensors read(safetensors(R"({"__metadata__": {"a": "b"},
        "d": {"dtype": "F64", "shape": [2, 1], "data_offsets": [12, 28]},
        "e": {"dtype": "F32", "shape": [0, 7], "data_offsets": [12, 12]},
        "f": {"dtype": "F32", "shape": [3], "data_offsets": [0, 12]}})",
                                       data),
                           "file");
    const Tensor& d = read.tensors().at("d");
    CHECK(read.tensors().size() == 3 && d.rank == 2 && d.dtype == DType::float64);
    CHECK(d.as<double>()[0] == 1.5 && d.as<double>()[1] == -2.0);
    CHECK(read.tensors().at("f").as<float>()[2] == 5.0f);
}

TEST(safetensors_damaged) {
    const auto refused = [](const std::string& bytes, const std::string& part) {
        CHECK(check::has(check::message_of([&] { const Safetensors read(bytes, "file"); }), part));
    };
    const auto of = [](const std::string& entry) { return safetensors("{\"t\": " + entry + "}", "12345678"); };
    refused("", "has 0 bytes");
    refused(std::string(8, '\xff'), "the header has 18446744073709551615 bytes");
    refused(safetensors("{} "), "");
    refused(safetensors("[]"), "file: the document is [], expected an object");
    refused(of("1"), "t is 1, expected an object");
    refused(of(R"({"dtype": "BF16", "shape": [4], "data_offsets": [0, 8]})"), "t.dtype is \"BF16\"");
    refused(of(R"({"dtype": "F32", "shape": [1], "data_offsets": [0, 8]})"), "span 8 bytes, the shape takes 4");
    refused(of(R"({"dtype": "F32", "shape": [1], "data_offsets": [4, 8]})"), "begins at byte 4, expected 0");
    refused(of(R"({"dtype": "F32", "shape": [1], "data_offsets": [0, 4]})"), "end at byte 4 of the data, which has 8");
    refused(of(R"({"dtype": "F32", "shape": [1], "data_offsets": [8, 4]})"), "data_offsets[1] is 4");
    refused(of(R"({"dtype": "F32", "shape": [2], "data_offsets": [0, 9]})"), "data_offsets[1] is 9");
    refused(of(R"({"dtype": "F32", "shape": [-1], "data_offsets": [0, 8]})"), "shape[0] is -1");
    refused(of(R"({"dtype": "F32", "shape": [1.5], "data_offsets": [0, 8]})"), "shape[0] is 1.5");
    refused(of(R"({"dtype": "F32", "shape": [2147483648, 2147483648, 2147483648], "data_offsets": [0, 8]})"),
            "takes more than the 8 bytes");
    refused(of(R"({"dtype": "F32", "shape": [1,1,1,1,1,1,2], "data_offsets": [0, 8]})"), "has 7 dimensions");
    const std::string two = R"({"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]},
                               "b": {"dtype": "F32", "shape": [1], "data_offsets": [4, 8]}})";
    refused(safetensors(two, "12345678"), "b begins at byte 4, expected 8");
    const std::string whole = of(R"({"dtype": "F32", "shape": [2], "data_offsets": [0, 8]})");
    for (std::size_t i = 0; i < whole.size(); ++i) {
        CHECK(!check::message_of([&] { const Safetensors read(whole.substr(0, i), "file"); }).empty());
    }
}

// Whatever the bytes, there are tensors within them, or an Error of the bundle; the sanitizers watch.
TEST(safetensors_of_changed_bytes) {
    const std::string whole = safetensors(R"({"a": {"dtype": "F32", "shape": [2, 1], "data_offsets": [0, 8]},
        "b": {"dtype": "F64", "shape": [1], "data_offsets": [8, 16]}})",
                                          std::string(16, '\0'));
    for (std::size_t i = 0; i < whole.size(); ++i) {
        for (const char c : {'\0', '"', '9', '-', '}', '[', '\xff'}) {
            std::string changed = whole;
            changed[i] = c;
            check::message_of([&] {
                const Safetensors read(changed, "file");
                double sum = 0.0;
                for (const auto& entry : read.tensors()) {
                    const Tensor& t = entry.second;
                    const std::int64_t count = t.rank == 2 ? t.size(0) * t.size(1) : t.rank == 1 ? t.size(0) : 1;
                    for (std::int64_t k = 0; k < count; ++k) {
                        sum += t.dtype == DType::float32 ? t.as<const float>()[k] : t.as<const double>()[k];
                    }
                }
                CHECK(sum == sum || c == '\xff');
            });
        }
    }
}

TEST(bundle_whole) {
    const Folder folder;
    BundleParts().write(folder);
    const Bundle bundle = Bundle::open(folder.path());
    CHECK(bundle.spec().family == "test" && bundle.outputs().size() == 2 && bundle.model().starts_with("fake 1"));
    CHECK(bundle.spread() == 1e-5 && bundle.map_scale()[1] == 0.5 && bundle.precision() == "fp32");
    CHECK(bundle.accepted_engine().empty() && bundle.scorer().threshold() == 0.25);
    CHECK(check::has(check::message_of([&] { bundle.golden(); }), "golden.safetensors has no x"));
}

TEST(bundle_refuses_what_is_not_its_own) {
    CHECK(check::has(refusal("/nowhere"), "/nowhere is no folder"));
    const Folder folder;
    BundleParts parts;
    parts.write(folder);
    folder.write("notes.txt", "");
    CHECK(check::has(refusal(folder.path()), "holds \"notes.txt\""));
    std::filesystem::remove(folder.path("notes.txt"));
    for (const auto& file : parts.files) {
        const std::string& name = file.first;
        folder.write(name, parts.files[name] + " ");
        CHECK(check::has(refusal(folder.path()), name + " has "));
        std::string changed = parts.files[name];
        changed.back() ^= 1;
        folder.write(name, changed);
        CHECK(check::has(refusal(folder.path()), name + " has been altered"));
        std::filesystem::remove(folder.path(name));
        CHECK(check::has(refusal(folder.path()), name + " is missing"));
        std::filesystem::create_symlink(folder.path("card.md"), folder.path(name));
        CHECK(check::has(refusal(folder.path()), name + " is missing or no plain file"));
        std::filesystem::remove(folder.path(name));
        folder.write(name, parts.files[name]);
    }
    CHECK(refusal(folder.path()).empty());
}

TEST(bundle_manifest_is_checked) {
    const auto refused = [](const std::string& field, const std::string& value, const std::string& part) {
        BundleParts parts;
        parts.manifest[field] = value;
        CHECK(check::has(refusal(std::move(parts)), part));
    };
    refused("schema", "2", "schema is 2, expected 1; a newer normscan may be needed");
    refused("schema", "\"1\"", "schema is \"1\", expected 1");
    refused("outputs", "[1]", "outputs[0] is 1, expected a text");
    refused("spread", "0.0", "spread is 0, expected a number > 0");
    refused("map_scale", "[2, 1]", "map_scale[1] is 1, expected a number >= 2");
    refused("precision", R"({"name": "fp8", "limits": [1, 1, 1]})", "precision.name is \"fp8\"");
    refused("precision", R"({"name": "int8", "limits": [1, 1, 1], "accepted": 3})",
            "accepted is 3, expected an object");
    refused("training", "{}", "training.seen is missing");
    refused("spec", "{}", "spec");
    refused("files", "{}", "card.md is missing");
    refused("files", R"({"../x": {"bytes": 1, "sha256": "0"}})", "files.../x is not one of");

    const Folder folder;
    BundleParts().write(folder);
    const std::string whole = read_file(folder.path("manifest.json"), 1 << 20);
    for (std::size_t i = 0; i + 1 < whole.size(); i += 7) {
        folder.write("manifest.json", whole.substr(0, i));
        CHECK(!refusal(folder.path()).empty());
        std::string changed = whole;
        changed[i] = changed[i] == '7' ? '8' : '7';
        folder.write("manifest.json", changed);
        CHECK(!refusal(folder.path()).empty());
    }
    folder.write("manifest.json", std::string((16 << 20) + 1, ' '));
    CHECK(check::has(refusal(folder.path()), "has 16777217 bytes, expected at most 16777216"));
}

// A manifest that somebody changed and hashed again is a bundle, or an Error.
TEST(bundle_of_changed_fields) {
    const Folder folder;
    for (const auto& [name, value] : BundleParts().manifest) {
        for (std::size_t i = 0; i < value.size(); i += 3) {
            for (const char c : {'"', '0', '-', '}', ','}) {
                BundleParts parts;
                parts.manifest[name][i] = c;
                check::message_of([&] {
                    parts.write(folder);  // throws where it is no JSON any more
                    Bundle::open(folder.path()).scorer();
                });
            }
        }
    }
}

// Bundles that normscan exported, in the folders that NORMSCAN_TEST_BUNDLES lists (tests/sdk gives its own).
TEST(bundle_from_python) {
    const char* const listed = std::getenv("NORMSCAN_TEST_BUNDLES");
    std::string rest = listed == nullptr ? "" : listed;
    while (!rest.empty()) {
        const std::size_t end = std::min(rest.find(':'), rest.size());
        CHECK(refusal(rest.substr(0, end)).empty());
        CHECK(!Bundle::open(rest.substr(0, end)).golden().tensors().empty());
        rest.erase(0, end + 1);
    }
}

}  // namespace

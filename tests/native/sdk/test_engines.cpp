// Engine modules: found, refused, run.
#include <cstdlib>

#include "bundles.hpp"
#include "check.hpp"
#include "core/engines.hpp"

using namespace normscan;

namespace {

std::string refusal(BundleParts parts, const std::string& engine) {
    const Folder folder;
    parts.write(folder);
    const Bundle bundle = Bundle::open(folder.path());
    return check::message_of([&] { open_engine(bundle, engine, "cpu", 1); });
}

TEST(engine_gives_named_outputs) {
    const Folder folder;
    BundleParts().write(folder);
    const auto engine = open_engine(Bundle::open(folder.path()), "fake", "cpu", 1);
    CHECK(engine->name() == std::string("fake"));
    float x[] = {1.0f, 2.0f, 3.0f, 4.0f}, other[] = {8.0f};
    const Engine::Run first(*engine, contiguous(x, {1, 1, 2, 2}));
    const Engine::Run second(*engine, contiguous(other, {1, 1, 1, 1}));  // has outputs of its own
    const Tensor& half = first.outputs().at("reconstruction");
    CHECK(half.rank == 4 && half.size(3) == 2 && half.step(2) == 2 && half.as<float>()[3] == 2.0f);
    CHECK(second.outputs().at("reconstruction").as<float>()[0] == 4.0f);
}

TEST(engine_refusals_are_told) {
    BundleParts parts;
    for (const char* name : {"Fake", "../fake", "a b"}) {
        CHECK(check::has(refusal(parts, name), std::string("engine is \"") + name + "\""));
    }
    CHECK(check::has(refusal(parts, "unknown"), "unknown: "));
    CHECK(check::has(refusal(parts, "unknown"), "libnormscan_engine_unknown.so"));
    const std::string none = refusal(parts, "");  // text is no ONNX
    CHECK(check::has(none, "tensorrt: ") && check::has(none, "openvino: "));
    parts.model = "fake 1\nrefuse it is Sunday\n";
    CHECK(check::has(refusal(parts, "fake"), "model.onnx cannot be opened by fake 1: it is Sunday"));
    parts.manifest["precision"] = R"({"name": "int8", "limits": [1, 1, 1], "accepted": {"engine": "fake"}})";
    CHECK(check::has(refusal(parts, ""), "it is Sunday"));
}

TEST(engine_that_is_no_module) {
    const Folder folder, bundle;
    BundleParts().write(bundle);
    folder.write("libnormscan_engine_text.so", "no library");
    const char* const before = std::getenv("NORMSCAN_ENGINES");
    const std::string restored = before == nullptr ? "" : before;
    ::setenv("NORMSCAN_ENGINES", folder.path().c_str(), 1);
    const Bundle opened = Bundle::open(bundle.path());
    CHECK(check::has(check::message_of([&] { open_engine(opened, "text", "cpu", 1); }), folder.path()));
    ::setenv("NORMSCAN_ENGINES", restored.c_str(), 1);
}

TEST(engine_must_have_the_names_of_the_manifest) {
    BundleParts parts;
    parts.model = "fake 1\nimage 1 0\n";
    CHECK(check::has(refusal(parts, "fake"), "outputs image, expected x and image, reconstruction"));
    parts.model = "fake 1\ninput pixels\nimage 1 0\nreconstruction 1 0\n";
    CHECK(check::has(refusal(parts, "fake"), "inputs pixels"));
}

}  // namespace

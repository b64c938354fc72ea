// An engine for tests, whose outputs are known: every one is factor * x + offset, in the shape of x. Its "model.onnx"
// is text: "fake 1", then a line for each output, "<name> <factor> <offset>". Other lines make it fail where it can:
// "input <name>" (instead of x), "refuse <why>" (to open), "break <why>" (when it runs), "flat" (outputs without H and
// W) and "wait <ms>" (in every run).
#include <chrono>
#include <sstream>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

#include "engines/module.hpp"

namespace {

using normscan::engines::guarded;

struct Output {
    std::string name;
    float factor, offset;
};

struct Engine {
    std::string input = "x", broken;
    std::vector<Output> outputs;
    std::chrono::milliseconds wait{0};
    bool flat = false;

    explicit Engine(const NormscanEngineModel& source) {
        std::istringstream text(
            std::string(static_cast<const char*>(source.onnx), static_cast<std::size_t>(source.bytes)));
        std::string line;
        if (!std::getline(text, line) || line != "fake 1") throw std::runtime_error("this is no model for tests");
        while (std::getline(text, line)) {
            std::istringstream words(line);
            std::string first, rest;
            words >> first;
            if (first == "flat") {
                flat = true;
            } else if (first == "wait") {
                int milliseconds = 0;
                words >> milliseconds;
                wait = std::chrono::milliseconds(milliseconds);
            } else if (first == "input") {
                words >> input;
            } else if (first == "refuse" || first == "break") {
                std::getline(words >> std::ws, rest);
                if (first == "refuse") throw std::runtime_error(rest);
                broken = rest;
            } else {
                Output output{first, 0.0f, 0.0f};
                words >> output.factor >> output.offset;
                outputs.push_back(output);
            }
        }
    }
};

struct Request {
    const Engine& engine;
    std::vector<std::vector<float>> values;

    void run(const NormscanEngineTensor& x, NormscanEngineTensor* outputs) {
        std::this_thread::sleep_for(engine.wait);
        if (!engine.broken.empty()) throw std::runtime_error(engine.broken);
        std::size_t count = 1;
        for (int32_t i = 0; i < x.rank; ++i) count *= static_cast<std::size_t>(x.shape[i]);
        values.resize(engine.outputs.size());
        for (std::size_t k = 0; k < values.size(); ++k) {
            values[k].resize(count);
            for (std::size_t i = 0; i < count; ++i) {
                values[k][i] = engine.outputs[k].factor * x.data[i] + engine.outputs[k].offset;
            }
            outputs[k] = x;
            outputs[k].data = values[k].data();
            if (engine.flat) outputs[k].rank = 2;
        }
    }
};

bool open(const NormscanEngineModel* model, void** engine, NormscanEngineMessage* message) {
    return guarded(message, [&] { *engine = new Engine(*model); });
}
void close(void* engine) {
    delete static_cast<Engine*>(engine);
}
const char* input_name(void* engine, int32_t index) {
    return index == 0 ? static_cast<Engine*>(engine)->input.c_str() : nullptr;
}
const char* output_name(void* engine, int32_t index) {
    const std::vector<Output>& all = static_cast<Engine*>(engine)->outputs;
    return index >= 0 && static_cast<std::size_t>(index) < all.size()
               ? all[static_cast<std::size_t>(index)].name.c_str()
               : nullptr;
}
bool open_request(void* engine, void** request, NormscanEngineMessage* message) {
    return guarded(message, [&] { *request = new Request{*static_cast<Engine*>(engine), {}}; });
}
void close_request(void* request) {
    delete static_cast<Request*>(request);
}
bool run(void* request, const NormscanEngineTensor* x, NormscanEngineTensor* outputs, NormscanEngineMessage* message) {
    return guarded(message, [&] { static_cast<Request*>(request)->run(*x, outputs); });
}

}  // namespace

const NormscanEngineModule* normscan_engine_module(uint32_t abi) {
    static const NormscanEngineModule module = {NORMSCAN_ENGINE_ABI, "fake",      "1",          open,          close,
                                                input_name,          output_name, open_request, close_request, run};
    return abi == NORMSCAN_ENGINE_ABI ? &module : nullptr;
}

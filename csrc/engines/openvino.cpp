// OpenVINO on the CPU, with the options of normscan/deploy/engines/openvino.py.
#include <openvino/openvino.hpp>

#include <algorithm>
#include <stdexcept>
#include <string>
#include <vector>

#include "engines/module.hpp"

namespace {

using normscan::engines::guarded;

std::vector<std::string> names(const std::vector<ov::Output<const ov::Node>>& ports) {
    std::vector<std::string> all;
    for (const auto& port : ports) all.push_back(port.get_any_name());
    return all;
}

struct Engine {
    ov::Core core;
    ov::CompiledModel model;
    std::vector<std::string> inputs, outputs;

    explicit Engine(const NormscanEngineModel& source) {
        const std::string device = source.device;
        if (device != "auto" && device != "cpu") {
            throw std::runtime_error("device is \"" + device + "\"; it runs on the CPU: use \"cpu\"");
        }
        ov::AnyMap options = {
            // By itself it multiplies in bfloat16 where the processor can; what is lowered is said by the graph.
            ov::hint::inference_precision(ov::element::f32),
            ov::hint::performance_mode(ov::hint::PerformanceMode::LATENCY),
            ov::num_streams(1),
        };
        if (source.threads > 0) options.insert(ov::inference_num_threads(source.threads));
        const std::string onnx(static_cast<const char*>(source.onnx), static_cast<std::size_t>(source.bytes));
        model = core.compile_model(core.read_model(onnx, ov::Tensor()), "CPU", options);
        inputs = names(model.inputs());
        outputs = names(model.outputs());
        for (const auto& port : model.outputs()) {
            if (port.get_element_type() != ov::element::f32) {
                throw std::runtime_error("output " + port.get_any_name() + " is " +
                                         port.get_element_type().get_type_name() + ", expected f32");
            }
        }
    }
};

struct Request {
    const Engine& engine;
    ov::InferRequest request;

    void run(const NormscanEngineTensor& x, NormscanEngineTensor* outputs) {
        const ov::Shape shape(x.shape, x.shape + x.rank);
        // OpenVINO takes an input that it does not write to as a mutable one.
        request.set_input_tensor(ov::Tensor(ov::element::f32, shape, const_cast<float*>(x.data)));
        request.infer();
        for (std::size_t i = 0; i < engine.outputs.size(); ++i) {
            const ov::Tensor found = request.get_output_tensor(i);
            const ov::Shape& size = found.get_shape();
            if (size.size() > NORMSCAN_ENGINE_MAX_RANK || !found.is_continuous()) {
                throw std::runtime_error("output " + engine.outputs[i] + " has " + std::to_string(size.size()) +
                                         " dimensions, expected at most 6, contiguous");
            }
            outputs[i].data = found.data<const float>();
            outputs[i].rank = static_cast<int32_t>(size.size());
            std::copy(size.begin(), size.end(), outputs[i].shape);
        }
    }
};

const char* name_at(const std::vector<std::string>& all, int32_t index) {
    return index >= 0 && static_cast<std::size_t>(index) < all.size() ? all[static_cast<std::size_t>(index)].c_str()
                                                                      : nullptr;
}

bool open(const NormscanEngineModel* model, void** engine, NormscanEngineMessage* message) {
    return guarded(message, [&] { *engine = new Engine(*model); });
}
void close(void* engine) {
    delete static_cast<Engine*>(engine);
}
const char* input_name(void* engine, int32_t index) {
    return name_at(static_cast<Engine*>(engine)->inputs, index);
}
const char* output_name(void* engine, int32_t index) {
    return name_at(static_cast<Engine*>(engine)->outputs, index);
}
bool open_request(void* engine, void** request, NormscanEngineMessage* message) {
    return guarded(message, [&] {
        auto* const own = static_cast<Engine*>(engine);
        *request = new Request{*own, own->model.create_infer_request()};
    });
}
void close_request(void* request) {
    delete static_cast<Request*>(request);
}
bool run(void* request, const NormscanEngineTensor* x, NormscanEngineTensor* outputs, NormscanEngineMessage* message) {
    return guarded(message, [&] { static_cast<Request*>(request)->run(*x, outputs); });
}

}  // namespace

const NormscanEngineModule* normscan_engine_module(uint32_t abi) {
    static const NormscanEngineModule module = {NORMSCAN_ENGINE_ABI,
                                                "openvino",
                                                ov::get_openvino_version().buildNumber,
                                                open,
                                                close,
                                                input_name,
                                                output_name,
                                                open_request,
                                                close_request,
                                                run};
    return abi == NORMSCAN_ENGINE_ABI ? &module : nullptr;
}

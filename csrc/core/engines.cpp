#include "core/engines.hpp"

#include <algorithm>
#include <cstdlib>

#include "core/files.hpp"
#include "normscan/error.hpp"
#include "ops/check.hpp"

namespace normscan {
namespace {

constexpr std::array<const char*, 2> order = {"tensorrt", "openvino"};

[[noreturn]] void refuse_engine(const std::string& what) {
    throw Error(Error::Kind::engine, what);
}

const NormscanEngineModule& load(const std::string& name) {
    // A name becomes part of a path.
    const auto plain = [](char c) { return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '_'; };
    if (name.empty() || !std::all_of(name.begin(), name.end(), plain)) {
        refuse_engine("engine is \"" + name + "\", expected lower-case letters, as in \"openvino\"");
    }
    const std::string path = engine_folder() + "/libnormscan_engine_" + name + ".so";
    const auto entry = reinterpret_cast<NormscanEngineEntry>(library_symbol(path, NORMSCAN_ENGINE_ENTRY));
    const NormscanEngineModule* const module = entry(NORMSCAN_ENGINE_ABI);
    if (module == nullptr || module->abi != NORMSCAN_ENGINE_ABI) {
        refuse_engine(path + " has another engine ABI, expected " + std::to_string(NORMSCAN_ENGINE_ABI));
    }
    return *module;
}

std::string joined(const std::vector<std::string>& names) {
    std::string text;
    for (const std::string& name : names) text.append(text.empty() ? "" : ", ").append(name);
    return text.empty() ? "none" : text;
}

std::vector<std::string> all_names(const char* (*name)(void*, int32_t), void* engine) {
    std::vector<std::string> all;
    for (int32_t i = 0; name(engine, i) != nullptr; ++i) all.emplace_back(name(engine, i));
    return all;
}

Tensor view(const NormscanEngineTensor& from) {
    Tensor t;
    t.data = const_cast<float*>(from.data);  // it is marked as read-only
    t.read_only = true;
    t.rank = std::clamp(from.rank, 0, Tensor::max_rank);
    std::copy_n(from.shape, t.rank, t.shape.begin());
    std::int64_t stride = 1;
    for (auto i = static_cast<std::size_t>(t.rank); i-- > 0;) {
        t.stride[i] = t.shape[i] > 1 ? stride : 1;
        stride *= t.shape[i];
    }
    return t;
}

}  // namespace

std::string engine_folder() {
    const char* const asked = std::getenv("NORMSCAN_ENGINES");
    return asked != nullptr && *asked != '\0' ? asked : own_folder() + "/normscan";
}

Engine::Engine(const NormscanEngineModule& module, const Bundle& bundle, const std::string& device, int threads)
    : module_(module), model_(bundle.folder() + "/model.onnx") {
    const NormscanEngineModel model = {bundle.model().data(), bundle.model().size(), device.c_str(),
                                       bundle.precision().c_str(), threads};
    NormscanEngineMessage message{};
    if (!module_.open(&model, &engine_, &message)) refuse("cannot be opened", message.text);
    try {
        check_names(bundle);
    } catch (...) {
        module_.close(engine_);
        throw;
    }
}

Engine::~Engine() {
    for (void* const request : idle_) module_.close_request(request);
    module_.close(engine_);
}

void Engine::refuse(const std::string& what, const char* why) const {
    refuse_engine(model_ + " " + what + " by " + module_.name + " " + module_.version + ": " + why);
}

void Engine::check_names(const Bundle& bundle) {
    const std::vector<std::string> inputs = all_names(module_.input_name, engine_);
    outputs_ = all_names(module_.output_name, engine_);
    std::vector<std::string> found = outputs_, expected = bundle.outputs();
    std::sort(found.begin(), found.end());
    std::sort(expected.begin(), expected.end());
    if (inputs != std::vector<std::string>{"x"} || found != expected) {
        throw Error(Error::Kind::bundle, model_ + " has inputs " + joined(inputs) + " and outputs " + joined(found) +
                                             ", expected x and " + joined(expected) + "; export the bundle again");
    }
}

void* Engine::take() {
    {
        const std::lock_guard lock(mutex_);
        if (!idle_.empty()) {
            void* const request = idle_.back();
            idle_.pop_back();
            return request;
        }
        idle_.reserve(++requests_);
    }
    void* request = nullptr;
    NormscanEngineMessage message{};
    if (!module_.open_request(engine_, &request, &message)) refuse("cannot be run", message.text);
    return request;
}

void Engine::give_back(void* request) {
    const std::lock_guard lock(mutex_);
    idle_.push_back(request);
}

Engine::Run::Run(Engine& engine, const Tensor& x) : engine_(engine), request_(engine.take()) {
    try {
        NormscanEngineTensor input{x.as<const float>(), x.rank, {}};
        std::copy_n(x.shape.begin(), x.rank, input.shape);
        std::vector<NormscanEngineTensor> found(engine_.outputs_.size());
        NormscanEngineMessage message{};
        if (!engine_.module_.run(request_, &input, found.data(), &message)) {
            engine_.refuse("cannot be run on x " + shape_text(x), message.text);
        }
        for (std::size_t i = 0; i < found.size(); ++i) outputs_.emplace(engine_.outputs_[i], view(found[i]));
    } catch (...) {
        engine_.module_.close_request(request_);  // what failed is not used again
        throw;
    }
}

Engine::Run::~Run() {
    engine_.give_back(request_);
}

std::unique_ptr<Engine> open_engine(const Bundle& bundle, const std::string& name, const std::string& device,
                                    int threads) {
    const std::string& only = name.empty() ? bundle.accepted_engine() : name;
    std::vector<std::string> tried(order.begin(), order.end());
    if (!only.empty()) tried = {only};
    std::string refusals;
    for (const std::string& one : tried) {
        try {
            return std::make_unique<Engine>(load(one), bundle, device, threads);
        } catch (const Error& error) {
            if (error.kind() != Error::Kind::engine) throw;
            refusals += (refusals.empty() ? "" : "; ") + one + ": " + error.what();
        }
    }
    refuse_engine("no engine opens " + bundle.folder() + ": " + refusals);
}

}  // namespace normscan

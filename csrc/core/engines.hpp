// Opens engine modules at run time, and runs them.
#pragma once

#include <memory>
#include <mutex>
#include <span>
#include <string>
#include <vector>

#include "core/bundle.hpp"
#include "normscan/engine.hpp"
#include "normscan/scorer.hpp"

namespace normscan {

// The network of a bundle, opened by one module. May be used by many threads.
class Engine {
  public:
    Engine(const NormscanEngineModule& module, const Bundle& bundle, const std::string& device, int threads);
    ~Engine();
    Engine(const Engine&) = delete;
    Engine& operator=(const Engine&) = delete;

    const char* name() const { return module_.name; }
    const char* version() const { return module_.version; }

    // The outputs of one run, for as long as this object lives: it has a request of its own.
    class Run {
      public:
        Run(Engine& engine, const Tensor& x);
        ~Run();
        Run(const Run&) = delete;
        Run& operator=(const Run&) = delete;

        const NamedTensors& outputs() const { return outputs_; }

      private:
        Engine& engine_;
        void* request_;
        NamedTensors outputs_;
    };

  private:
    // <model> <what> by <module>: <why>
    [[noreturn]] void refuse(const std::string& what, const char* why) const;
    void check_names(const Bundle& bundle);
    void* take();
    void give_back(void* request);

    const NormscanEngineModule& module_;
    std::string model_;  // its path, for messages
    void* engine_ = nullptr;
    std::vector<std::string> outputs_;
    std::mutex mutex_;
    std::size_t requests_ = 0;  // that were opened
    std::vector<void*> idle_;   // of them, with room for all: giving one back cannot fail
};

// The folder of the modules: NORMSCAN_ENGINES, else normscan/ beside this library.
std::string engine_folder();

// `name` opened; where it is empty, the one that the bundle was accepted on, or else the first of tensorrt, openvino
// that opens it. Throws Error::Kind::engine, with the reasons of all that refused.
std::unique_ptr<Engine> open_engine(const Bundle& bundle, const std::string& name, const std::string& device,
                                    int threads);

}  // namespace normscan

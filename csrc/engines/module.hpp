// What every engine module needs: its entry is exported, its exceptions end in a message.
#pragma once

#include <cstring>
#include <exception>
#include <string>

#include "normscan/engine.hpp"

#if defined(_WIN32)
#define NORMSCAN_ENGINE_EXPORT extern "C" __declspec(dllexport)
#else
#define NORMSCAN_ENGINE_EXPORT extern "C" __attribute__((visibility("default")))
#endif

NORMSCAN_ENGINE_EXPORT const NormscanEngineModule* normscan_engine_module(uint32_t abi);

namespace normscan::engines {

inline void tell(NormscanEngineMessage* message, const std::string& text) {
    const std::size_t length = text.copy(message->text, sizeof message->text - 1);
    message->text[length] = '\0';
}

// Whether body() came to its end.
template <class F>
bool guarded(NormscanEngineMessage* message, F&& body) noexcept {
    try {
        body();
        return true;
    } catch (const std::exception& error) {
        tell(message, error.what());
    } catch (...) {
        tell(message, "an unknown exception");
    }
    return false;
}

}  // namespace normscan::engines

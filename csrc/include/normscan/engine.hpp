// The ABI of an engine module: a shared library, libnormscan_engine_<name>.so, that runs a network. It exports one
// function, `normscan_engine_module`, and includes nothing else of normscan. C linkage and plain structs; no exception
// crosses. Where a function can fail it returns false and writes what was found and expected to `message`.
#pragma once

#include <stddef.h>
#include <stdint.h>

extern "C" {

#define NORMSCAN_ENGINE_ABI 1
#define NORMSCAN_ENGINE_MAX_RANK 6
#define NORMSCAN_ENGINE_ENTRY "normscan_engine_module"

// Room for an error, UTF-8 with its end; what does not fit is cut off.
struct NormscanEngineMessage {
    char text[1024];
};

// What is opened. All of it is the caller's, and lives until `open` returns.
struct NormscanEngineModel {
    const void* onnx;  // the file model.onnx
    uint64_t bytes;
    const char* device;     // "auto" or "cpu", or what else the module knows
    const char* precision;  // of the network: "fp32", "fp16", "bf16" or "int8"
    int32_t threads;        // 0: as many as it likes
};

// A tensor of float32 in contiguous memory of the host.
struct NormscanEngineTensor {
    const float* data;
    int32_t rank;
    int64_t shape[NORMSCAN_ENGINE_MAX_RANK];
};

struct NormscanEngineModule {
    uint32_t abi;         // NORMSCAN_ENGINE_ABI
    const char* name;     // as in the file's name
    const char* version;  // of what runs the network

    // An engine may be used by many threads at once, until it is closed.
    bool (*open)(const NormscanEngineModel* model, void** engine, NormscanEngineMessage* message);
    void (*close)(void* engine);
    // The names of the network's inputs and outputs, of those that lie in 0..count-1; else null. They live as long as
    // the engine.
    const char* (*input_name)(void* engine, int32_t index);
    const char* (*output_name)(void* engine, int32_t index);

    // A request serves one caller at a time; it holds the outputs of its last run. Close it before the engine.
    bool (*open_request)(void* engine, void** request, NormscanEngineMessage* message);
    void (*close_request)(void* request);
    // x [N,C,H,W] -> outputs, one for each name and in their order, in memory of the request.
    bool (*run)(void* request, const NormscanEngineTensor* x, NormscanEngineTensor* outputs,
                NormscanEngineMessage* message);
};

// Null where the module does not have that ABI; else a table that lives as long as the process.
typedef const NormscanEngineModule* (*NormscanEngineEntry)(uint32_t abi);

}  // extern "C"

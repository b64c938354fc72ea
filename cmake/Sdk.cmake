# The SDK: what it adds to the core (bundles).
add_library(normscan_sdk STATIC csrc/core/bundle.cpp csrc/core/files.cpp csrc/core/safetensors.cpp csrc/core/sha256.cpp)
target_include_directories(normscan_sdk PUBLIC csrc/include PRIVATE csrc)
target_link_libraries(normscan_sdk PUBLIC normscan_core PRIVATE normscan_warnings ${CMAKE_DL_LIBS})

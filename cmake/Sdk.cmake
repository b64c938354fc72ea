# The SDK: libnormscan with its C API, and the engine modules, which it opens at run time. normscan_sdk is what it adds
# to the core: bundles, engines, sessions.
enable_language(C) # of the examples and the tests of the C API
include(GNUInstallDirs)
set(NORMSCAN_SDK_FOLDER "${CMAKE_BINARY_DIR}/lib") # as it is installed: modules in normscan/ beside the library

add_library(normscan_sdk STATIC csrc/core/bundle.cpp csrc/core/engines.cpp csrc/core/files.cpp csrc/core/pictures.cpp
                                csrc/core/safetensors.cpp csrc/core/session.cpp csrc/core/sha256.cpp)
target_include_directories(normscan_sdk PUBLIC csrc/include PRIVATE csrc)
target_link_libraries(normscan_sdk PUBLIC normscan_core PRIVATE normscan_warnings ${CMAKE_DL_LIBS})

# Exports the C API alone: hidden visibility leaves weak symbols of std::, the version script hides them, too.
file(STRINGS csrc/include/normscan/normscan.h NORMSCAN_ABI REGEX "^#define NORMSCAN_ABI ")
string(REGEX REPLACE "[^0-9]" "" NORMSCAN_ABI "${NORMSCAN_ABI}")
set(NORMSCAN_EXPORTS "${CMAKE_CURRENT_SOURCE_DIR}/csrc/capi/exports.map")
add_library(normscan_shared SHARED csrc/capi/normscan.cpp)
target_include_directories(normscan_shared PUBLIC $<BUILD_INTERFACE:${CMAKE_CURRENT_SOURCE_DIR}/csrc/include>
                           PRIVATE csrc)
target_compile_definitions(normscan_shared PRIVATE NORMSCAN_BUILDING NORMSCAN_VERSION="${NORMSCAN_VERSION}")
target_link_libraries(normscan_shared PRIVATE normscan_sdk normscan_warnings)
target_link_options(normscan_shared PRIVATE "LINKER:--version-script=${NORMSCAN_EXPORTS}")
set_target_properties(normscan_shared PROPERTIES OUTPUT_NAME normscan SOVERSION ${NORMSCAN_ABI}
                      VERSION ${NORMSCAN_ABI}.${NORMSCAN_VERSION} LINK_DEPENDS "${NORMSCAN_EXPORTS}"
                      LIBRARY_OUTPUT_DIRECTORY "${NORMSCAN_SDK_FOLDER}")
install(TARGETS normscan_shared COMPONENT sdk LIBRARY DESTINATION ${CMAKE_INSTALL_LIBDIR})

add_executable(score_one csrc/examples/score_one.c)
set_target_properties(score_one PROPERTIES C_STANDARD 99 C_EXTENSIONS OFF
                      RUNTIME_OUTPUT_DIRECTORY "${CMAKE_BINARY_DIR}/examples")
target_link_libraries(score_one PRIVATE normscan_shared normscan_warnings)

function(normscan_add_engine name)
  set(target normscan_engine_${name})
  add_library(${target} MODULE csrc/engines/${name}.cpp)
  target_include_directories(${target} PRIVATE csrc csrc/include)
  target_link_libraries(${target} PRIVATE normscan_warnings ${ARGN})
  set_target_properties(${target} PROPERTIES LIBRARY_OUTPUT_DIRECTORY "${NORMSCAN_SDK_FOLDER}/normscan")
endfunction()

# OpenVINO_DIR=<site-packages>/openvino/cmake, of the wheel. The module finds it beside itself, or where it was built.
find_package(OpenVINO QUIET COMPONENTS Runtime)
if(OpenVINO_FOUND)
  normscan_add_engine(openvino openvino::runtime)
  set_target_properties(normscan_engine_openvino PROPERTIES INSTALL_RPATH "$ORIGIN" INSTALL_RPATH_USE_LINK_PATH ON)
  install(TARGETS normscan_engine_openvino COMPONENT sdk LIBRARY DESTINATION ${CMAKE_INSTALL_LIBDIR}/normscan)
else()
  message(STATUS "normscan: no OpenVINO (OpenVINO_DIR), the SDK is built without its engine")
endif()
if(NORMSCAN_BUILD_TESTS)
  normscan_add_engine(fake)
endif()

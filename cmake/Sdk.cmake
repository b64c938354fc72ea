# The SDK: what it adds to the core (bundles, engines, sessions), and the engine modules, which are opened at run time.
include(GNUInstallDirs)
set(NORMSCAN_SDK_FOLDER "${CMAKE_BINARY_DIR}/lib") # as it is installed: modules in normscan/ beside the library

add_library(normscan_sdk STATIC csrc/core/bundle.cpp csrc/core/engines.cpp csrc/core/files.cpp csrc/core/pictures.cpp
                                csrc/core/safetensors.cpp csrc/core/session.cpp csrc/core/sha256.cpp)
target_include_directories(normscan_sdk PUBLIC csrc/include PRIVATE csrc)
target_link_libraries(normscan_sdk PUBLIC normscan_core PRIVATE normscan_warnings ${CMAKE_DL_LIBS})

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

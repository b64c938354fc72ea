# NORMSCAN_CUDA: AUTO builds the CUDA module where a CUDA compiler works, ON demands one, OFF never looks for one.
#
# CMAKE_CUDA_ARCHITECTURES defaults to the list of a release; name one (86, 90) while developing.
set(NORMSCAN_RELEASE_ARCHITECTURES 75-real 80-real 86-real 89-real 90-real 100 120)

if(NOT NORMSCAN_CUDA MATCHES "^(AUTO|ON|OFF)$")
  message(FATAL_ERROR "NORMSCAN_CUDA is '${NORMSCAN_CUDA}'; expected AUTO, ON or OFF")
endif()
set(NORMSCAN_HAS_CUDA OFF)
if(NOT NORMSCAN_CUDA STREQUAL "OFF")
  include(CheckLanguage)
  check_language(CUDA)
  if(CMAKE_CUDA_COMPILER)
    if(NOT DEFINED CMAKE_CUDA_ARCHITECTURES)
      set(CMAKE_CUDA_ARCHITECTURES ${NORMSCAN_RELEASE_ARCHITECTURES})
    endif()
    set(CMAKE_CUDA_RUNTIME_LIBRARY Static)
    string(APPEND CMAKE_CUDA_FLAGS " -std=c++20") # CMake before 3.26 does not know that nvcc has CUDA20
    enable_language(CUDA)
    find_package(CUDAToolkit REQUIRED)
    set(NORMSCAN_HAS_CUDA ON)
    message(STATUS "normscan: CUDA ${CMAKE_CUDA_COMPILER_VERSION} for ${CMAKE_CUDA_ARCHITECTURES}")
  elseif(NORMSCAN_CUDA STREQUAL "ON")
    message(FATAL_ERROR "NORMSCAN_CUDA=ON, but no CUDA compiler works here; put nvcc on the PATH or set CUDACXX, "
                        "or build with NORMSCAN_CUDA=AUTO or OFF")
  else()
    message(STATUS "normscan: no CUDA compiler, building for the CPU only")
  endif()
endif()

# The module _cuda over csrc/ops/kernels/<op>.cu: `target` from nvcc, or from g++ with the emulation's headers.
function(normscan_add_cuda_module target)
  pybind11_add_module(${target} MODULE NO_EXTRAS csrc/bindings/cuda_module.cpp csrc/bindings/bind_cuda.cpp
                      csrc/bindings/dlpack.cpp csrc/bindings/errors.cpp)
  target_sources(${target} PRIVATE ${ARGN})
  target_include_directories(${target} PRIVATE csrc)
  target_link_libraries(${target} PRIVATE normscan_core normscan_warnings)
  target_link_options(${target} PRIVATE -Wl,--gc-sections)
endfunction()

function(normscan_add_cuda)
  if(NOT NORMSCAN_BUILD_PYTHON)
    return()
  endif()
  list(TRANSFORM ARGN REPLACE "(.+)" "csrc/ops/kernels/\\1.cu" OUTPUT_VARIABLE sources)
  if(NORMSCAN_HAS_CUDA)
    normscan_add_cuda_module(_cuda ${sources})
    target_link_libraries(_cuda PRIVATE CUDA::cudart_static)
    install(TARGETS _cuda COMPONENT python LIBRARY DESTINATION normscan)
  endif()
  if(NORMSCAN_CUDA_EMULATION)
    normscan_add_cuda_emulation(${sources})
  endif()
endfunction()

function(normscan_add_cuda_emulation)
  set(copies)
  foreach(source ${ARGN}) # the very same text, under a name that makes it C++ even where CUDA is a language too
    get_filename_component(stem ${source} NAME_WE)
    set(copy ${CMAKE_CURRENT_BINARY_DIR}/cuda_emulation/${stem}_emulated.cpp)
    file(CONFIGURE OUTPUT ${copy} CONTENT "#include \"${CMAKE_CURRENT_SOURCE_DIR}/${source}\"\n" @ONLY)
    list(APPEND copies ${copy})
  endforeach()
  normscan_add_cuda_module(_cuda_emulated ${copies} tests/cuda_emulation/emulation.cpp)
  target_include_directories(_cuda_emulated BEFORE PRIVATE tests/cuda_emulation)
  target_compile_definitions(_cuda_emulated PRIVATE NORMSCAN_EMULATED_CUDA)
  target_compile_options(_cuda_emulated PRIVATE -O1)
  if("thread" IN_LIST NORMSCAN_SANITIZE OR NORMSCAN_SANITIZE STREQUAL "thread")
    set_source_files_properties(tests/cuda_emulation/emulation.cpp PROPERTIES COMPILE_OPTIONS -fno-sanitize=thread
                                COMPILE_DEFINITIONS EMULATION_THREAD_SANITIZER)
  endif()
  set_target_properties(_cuda_emulated PROPERTIES OUTPUT_NAME _cuda LIBRARY_OUTPUT_DIRECTORY
                                                  ${CMAKE_CURRENT_BINARY_DIR}/cuda_emulation)
endfunction()

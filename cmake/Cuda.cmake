# NORMSCAN_CUDA: AUTO builds the CUDA module where a CUDA compiler works, ON demands one, OFF never looks for one.
#
# CMAKE_CUDA_ARCHITECTURES defaults to the list of a release; name one (86, 90) while developing.
# 8.6 and 8.9 run the code of 8.0 (one binary serves all minor versions from its own on): two fewer to compile and ship.
set(NORMSCAN_RELEASE_ARCHITECTURES 75-real 80-real 90-real 100 120)

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
    set(CMAKE_CUDA_STANDARD 20)
    set(CMAKE_CUDA_STANDARD_REQUIRED ON)
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

# The module _cuda over csrc/ops/kernels/<op>.cu and csrc/core/<op>.cu: `target` from nvcc, or from g++ with the
# emulation's headers.
function(normscan_add_cuda_module target)
  pybind11_add_module(${target} MODULE NO_EXTRAS csrc/bindings/cuda_module.cpp csrc/bindings/bind_cuda.cpp
                      csrc/bindings/dlpack.cpp csrc/bindings/errors.cpp)
  target_sources(${target} PRIVATE ${ARGN})
  target_include_directories(${target} PRIVATE csrc)
  target_link_libraries(${target} PRIVATE normscan_core normscan_warnings)
  target_link_options(${target} PRIVATE -Wl,--gc-sections)
endfunction()

function(normscan_add_cuda)
  list(TRANSFORM ARGN REPLACE "^([^/]+)$" "ops/kernels/\\1" OUTPUT_VARIABLE sources)
  list(TRANSFORM sources REPLACE "(.+)" "csrc/\\1.cu")
  if(NORMSCAN_HAS_CUDA AND NORMSCAN_BUILD_PYTHON)
    normscan_add_cuda_module(_cuda ${sources})
    target_link_libraries(_cuda PRIVATE CUDA::cudart_static)
    install(TARGETS _cuda COMPONENT python LIBRARY DESTINATION normscan)
  endif()
  if(NORMSCAN_CUDA_EMULATION)
    normscan_add_cuda_emulation(${sources})
  endif()
endfunction()

# What the emulation claims to find, each in the build that is to find it.
function(normscan_test_cuda_emulation)
  add_executable(cuda_emulation_selftest tests/cuda_emulation/selftest.cpp tests/cuda_emulation/emulation.cpp)
  target_include_directories(cuda_emulation_selftest BEFORE PRIVATE tests/cuda_emulation)
  target_link_libraries(cuda_emulation_selftest PRIVATE normscan_warnings)
  target_compile_options(cuda_emulation_selftest PRIVATE -O1)
  set(barrier "a barrier that the others never reach")
  set(finds "nothing_wrong=right" "half_of_a_barrier=${barrier}" "lane_outside_the_mask=outside its mask")
  if(NORMSCAN_SANITIZE MATCHES "thread")
    list(APPEND finds "missing_barrier=data race" "missing_second_barrier=data race" "shuffle_for_a_barrier=data race")
  else()
    list(APPEND finds "missing_barrier=wrong" "missing_second_barrier=wrong" "unwritten_output=wrong"
         "unwritten_shared_memory=wrong")
  endif()
  if(NORMSCAN_SANITIZE MATCHES "address")
    list(APPEND finds "past_the_launch_s_shared_memory=use-after-poison" "past_a_shared_array=global-buffer-overflow|out of bounds"
         "past_global_memory=heap-buffer-overflow")
  endif()
  foreach(find ${finds})
    string(REPLACE "=" ";" find "${find}")
    list(GET find 0 name)
    list(GET find 1 report)
    add_test(NAME emulation_${name} COMMAND cuda_emulation_selftest ${name})
    set_tests_properties(emulation_${name} PROPERTIES PASS_REGULAR_EXPRESSION "${report}")
  endforeach()
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
  normscan_test_cuda_emulation()
  target_include_directories(_cuda_emulated BEFORE PRIVATE tests/cuda_emulation)
  target_compile_definitions(_cuda_emulated PRIVATE NORMSCAN_EMULATED_CUDA)
  target_compile_options(_cuda_emulated PRIVATE -O1 -Wno-unknown-pragmas) # "unroll" is nvcc's
  if("thread" IN_LIST NORMSCAN_SANITIZE OR NORMSCAN_SANITIZE STREQUAL "thread")
    set_source_files_properties(tests/cuda_emulation/emulation.cpp PROPERTIES COMPILE_OPTIONS -fno-sanitize=thread
                                COMPILE_DEFINITIONS EMULATION_THREAD_SANITIZER)
  endif()
  set_target_properties(_cuda_emulated PROPERTIES OUTPUT_NAME _cuda LIBRARY_OUTPUT_DIRECTORY
                                                  ${CMAKE_CURRENT_BINARY_DIR}/cuda_emulation)
endfunction()

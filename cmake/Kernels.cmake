# The kernels: one source each, compiled once for every instruction set, chosen at run time (csrc/ops/dispatch.cpp).
#
# Never -ffast-math: it would remove the NaN checks. What is allowed here lets the compiler vectorise sums.
if(NORMSCAN_SANITIZE)
  set(NORMSCAN_KERNEL_OPTIMISATION -O1)
else()
  set(NORMSCAN_KERNEL_OPTIMISATION -O3)
endif()
set(NORMSCAN_KERNEL_FLAGS ${NORMSCAN_KERNEL_OPTIMISATION} -fassociative-math -fno-signed-zeros -fno-trapping-math -fno-math-errno)
set(NORMSCAN_KERNEL_OBJECTS)
set(NORMSCAN_KERNEL_DEFINITIONS)

function(normscan_add_kernel_level level)
  cmake_parse_arguments(PARSE_ARGV 1 ARG "" "" "OPS;FLAGS")
  list(TRANSFORM ARG_OPS REPLACE "(.+)" "csrc/ops/kernels/\\1.cpp")
  add_library(normscan_kernels_${level} OBJECT ${ARG_OPS})
  target_include_directories(normscan_kernels_${level} PRIVATE csrc csrc/include)
  target_compile_definitions(normscan_kernels_${level} PRIVATE NORMSCAN_ISA=${level})
  target_compile_options(normscan_kernels_${level} PRIVATE ${NORMSCAN_KERNEL_FLAGS} ${ARG_FLAGS})
  target_link_libraries(normscan_kernels_${level} PRIVATE normscan_warnings)
endfunction()

# Defines NORMSCAN_KERNEL_OBJECTS and NORMSCAN_KERNEL_DEFINITIONS for the library that takes the kernels in.
macro(normscan_add_kernels)
  normscan_add_kernel_level(baseline OPS ${ARGN})
  list(APPEND NORMSCAN_KERNEL_OBJECTS $<TARGET_OBJECTS:normscan_kernels_baseline>)
  # Threads are the launcher's: which instructions a kernel has is nothing to ThreadSanitizer.
  if(CMAKE_SYSTEM_PROCESSOR MATCHES "^(x86_64|AMD64|amd64)$" AND NOT NORMSCAN_SANITIZE MATCHES "thread")
    normscan_add_kernel_level(avx2 OPS ${ARGN} FLAGS -mavx2 -mfma -mf16c)
    normscan_add_kernel_level(avx512 OPS ${ARGN} FLAGS -mavx2 -mfma -mf16c -mavx512f -mavx512dq -mavx512bw -mavx512vl
                              -mprefer-vector-width=512)
    list(APPEND NORMSCAN_KERNEL_OBJECTS $<TARGET_OBJECTS:normscan_kernels_avx2>
         $<TARGET_OBJECTS:normscan_kernels_avx512>)
    list(APPEND NORMSCAN_KERNEL_DEFINITIONS NORMSCAN_X86_KERNELS)
  endif()
endmacro()

# A weak symbol in an AVX object may be the copy that the linker keeps for every processor: there must be none.
function(normscan_test_kernel_symbols)
  foreach(level avx2 avx512)
    if(TARGET normscan_kernels_${level})
      add_test(NAME no_weak_symbols_${level}
               COMMAND ${CMAKE_COMMAND} "-DNM=${CMAKE_NM}" "-DOBJECTS=$<TARGET_OBJECTS:normscan_kernels_${level}>" -P
                       "${CMAKE_CURRENT_SOURCE_DIR}/cmake/CheckWeakSymbols.cmake")
    endif()
  endforeach()
endfunction()

# The warnings of this project, as an interface target, so that headers of others are not judged by them.
set(NORMSCAN_CXX_WARNINGS -Wall -Wextra -Wpedantic -Wshadow -Wconversion -Wnon-virtual-dtor)
set(NORMSCAN_C_WARNINGS -Wall -Wextra -Wpedantic -Wshadow -Wconversion -Wstrict-prototypes)
set(NORMSCAN_CUDA_WARNINGS -Xcompiler=-Wall,-Wextra) # nvcc's own code is neither pedantic nor free of shadows
if(NORMSCAN_WERROR)
  list(APPEND NORMSCAN_C_WARNINGS -Werror)
  list(APPEND NORMSCAN_CXX_WARNINGS -Werror)
  list(APPEND NORMSCAN_CUDA_WARNINGS -Werror=all-warnings)
endif()
add_library(normscan_warnings INTERFACE)
target_compile_options(normscan_warnings INTERFACE "$<$<COMPILE_LANGUAGE:C>:${NORMSCAN_C_WARNINGS}>"
                                                   "$<$<COMPILE_LANGUAGE:CXX>:${NORMSCAN_CXX_WARNINGS}>"
                                                   "$<$<COMPILE_LANGUAGE:CUDA>:${NORMSCAN_CUDA_WARNINGS}>")

# NORMSCAN_CUDA: this version has no CUDA sources, and says so instead of building less than was asked for.
if(NOT NORMSCAN_CUDA MATCHES "^(AUTO|ON|OFF)$")
  message(FATAL_ERROR "NORMSCAN_CUDA is '${NORMSCAN_CUDA}'; expected AUTO, ON or OFF")
elseif(NORMSCAN_CUDA STREQUAL "ON")
  message(FATAL_ERROR "NORMSCAN_CUDA=ON, but there are no CUDA sources in this version of normscan; "
                      "build with NORMSCAN_CUDA=AUTO or OFF")
elseif(NORMSCAN_CUDA STREQUAL "AUTO")
  message(STATUS "normscan: no CUDA sources in this version, building for the CPU only")
endif()

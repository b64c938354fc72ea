# The warnings of this project, as an interface target, so that headers of others are not judged by them.
add_library(normscan_warnings INTERFACE)
target_compile_options(normscan_warnings INTERFACE -Wall -Wextra -Wpedantic -Wshadow -Wconversion -Wnon-virtual-dtor)
if(NORMSCAN_WERROR)
  target_compile_options(normscan_warnings INTERFACE -Werror)
endif()

# Functions shared by all folders.

if(STRATA_CCACHE)
  find_program(STRATA_CCACHE_PROGRAM ccache)
  if(STRATA_CCACHE_PROGRAM)
    # ccache passes sources with a precompiled header by unless it is told that this is fine, and the compiler helps.
    set(CMAKE_CXX_COMPILER_LAUNCHER ${CMAKE_COMMAND} -E env CCACHE_SLOPPINESS=pch_defines,time_macros ${STRATA_CCACHE_PROGRAM})
    add_compile_options($<$<COMPILE_LANG_AND_ID:CXX,GNU>:-fpch-preprocess>)
  endif()
endif()

add_library(strata_options INTERFACE)
target_include_directories(strata_options INTERFACE ${CMAKE_SOURCE_DIR})
set(STRATA_WARNINGS -Wall -Wextra -Werror -Wno-missing-field-initializers)
target_compile_options(strata_options INTERFACE
  $<$<COMPILE_LANGUAGE:CXX>:${STRATA_WARNINGS};-fno-math-errno;-ffp-contract=off>)
if(STRATA_SANITIZE STREQUAL "address")
  target_compile_options(strata_options INTERFACE -fsanitize=address,undefined -fno-sanitize-recover=undefined -fno-omit-frame-pointer)
  target_link_options(strata_options INTERFACE -fsanitize=address,undefined)
elseif(STRATA_SANITIZE STREQUAL "fuzzer")  # clang; the programs of tests/fuzz add libFuzzer itself
  target_compile_options(strata_options INTERFACE
    -fsanitize=fuzzer-no-link,address,undefined -fno-sanitize-recover=undefined -fno-omit-frame-pointer)
  target_link_options(strata_options INTERFACE -fsanitize=address,undefined)
elseif(STRATA_SANITIZE STREQUAL "thread")
  target_compile_options(strata_options INTERFACE -fsanitize=thread -fno-omit-frame-pointer)
  target_link_options(strata_options INTERFACE -fsanitize=thread)
endif()
if(STRATA_POISON)
  target_compile_definitions(strata_options INTERFACE STRATA_POISON=1)
endif()

# strata_library(NAME deps...): one static library of a folder's sources, found by name, in a fixed order. *.cu and
# *_cuda.cc are for a build with CUDA, *_nocuda.cc stand in for them without.
function(strata_library name)
  file(GLOB_RECURSE sources CONFIGURE_DEPENDS ${CMAKE_CURRENT_SOURCE_DIR}/*.cc)
  list(FILTER sources EXCLUDE REGEX "/main\\.cc$")
  if(STRATA_HAVE_CUDA)
    list(FILTER sources EXCLUDE REGEX "_nocuda\\.cc$")
    file(GLOB_RECURSE cuda_sources CONFIGURE_DEPENDS ${CMAKE_CURRENT_SOURCE_DIR}/*.cu)
    list(APPEND sources ${cuda_sources})
  else()
    list(FILTER sources EXCLUDE REGEX "_cuda\\.cc$")
  endif()
  list(SORT sources)
  add_library(strata_${name} STATIC ${sources})
  target_link_libraries(strata_${name} PUBLIC strata_options ${ARGN})
  target_precompile_headers(strata_${name} PRIVATE ${CMAKE_SOURCE_DIR}/cmake/pch.h)
endfunction()

# What our own tests, benchmarks and examples have in common. None of it reaches the INTERFACE targets.
find_program(LOWRANK_CCACHE ccache)
mark_as_advanced(LOWRANK_CCACHE)
if(LOWRANK_CCACHE AND NOT DEFINED CMAKE_CXX_COMPILER_LAUNCHER)
  set(CMAKE_CXX_COMPILER_LAUNCHER "${LOWRANK_CCACHE}")
endif()

set(CMAKE_CXX_EXTENSIONS OFF)
set(CMAKE_EXPORT_COMPILE_COMMANDS ON)

add_library(lowrank_own_options INTERFACE)
target_compile_options(lowrank_own_options INTERFACE -Wall -Wextra -Wpedantic -Wshadow -Wnon-virtual-dtor
                                                     -Wold-style-cast -Woverloaded-virtual)
if(CMAKE_CXX_COMPILER_ID STREQUAL "GNU" AND CMAKE_CXX_COMPILER_VERSION VERSION_LESS 13)
  # g++ 12 finds "maybe uninitialized" in its own AVX-512 intrinsics, and in code that a sanitizer has instrumented.
  target_compile_options(lowrank_own_options INTERFACE -Wno-maybe-uninitialized -Wno-uninitialized -Wno-restrict)
endif()
if(LOWRANK_WARNINGS_AS_ERRORS)
  target_compile_options(lowrank_own_options INTERFACE -Werror)
endif()
if(LOWRANK_NATIVE)
  target_compile_options(lowrank_own_options INTERFACE -march=native)
endif()
if(LOWRANK_SANITIZE)
  target_compile_options(lowrank_own_options INTERFACE -fsanitize=${LOWRANK_SANITIZE} -fno-sanitize-recover=all
                                                       -fno-omit-frame-pointer)
  target_link_options(lowrank_own_options INTERFACE -fsanitize=${LOWRANK_SANITIZE})
endif()

# Everything a program of ours may use; LOWRANK_HAS_BLAS tells it whether the BLAS executor can be linked.
add_library(lowrank_everything INTERFACE)
target_link_libraries(lowrank_everything INTERFACE lowrank::lowrank)
if(TARGET lowrank::io)
  target_link_libraries(lowrank_everything INTERFACE lowrank::io)
endif()
if(TARGET lowrank::blas)
  target_link_libraries(lowrank_everything INTERFACE lowrank::blas)
  target_compile_definitions(lowrank_everything INTERFACE LOWRANK_HAS_BLAS=1)
endif()

# Classes of Unicode characters, for the example models' tokenizer.
find_path(LOWRANK_UTF8PROC_INCLUDE utf8proc.h)
find_library(LOWRANK_UTF8PROC utf8proc)
mark_as_advanced(LOWRANK_UTF8PROC_INCLUDE LOWRANK_UTF8PROC)
if(LOWRANK_UTF8PROC AND LOWRANK_UTF8PROC_INCLUDE)
  target_include_directories(lowrank_everything SYSTEM INTERFACE "${LOWRANK_UTF8PROC_INCLUDE}")
  target_link_libraries(lowrank_everything INTERFACE "${LOWRANK_UTF8PROC}")
  target_compile_definitions(lowrank_everything INTERFACE LOWRANK_HAS_UTF8PROC=1)
endif()

# Declare `target` as one of our own programs or libraries.
function(lowrank_own target)
  target_link_libraries(${target} PRIVATE lowrank_own_options)
  get_target_property(kind ${target} TYPE)
  if(kind STREQUAL "EXECUTABLE")
    target_link_libraries(${target} PRIVATE lowrank_everything)
  else()
    target_link_libraries(${target} PUBLIC lowrank_everything)
  endif()
endfunction()

# Settings and helpers shared by all of DynaFlow's own targets.

find_program(DYNAFLOW_CCACHE ccache)
mark_as_advanced(DYNAFLOW_CCACHE)
if(DYNAFLOW_CCACHE AND NOT CMAKE_CXX_COMPILER_LAUNCHER)
  set(CMAKE_CXX_COMPILER_LAUNCHER ${DYNAFLOW_CCACHE})
endif()

set(CMAKE_CXX_STANDARD 20)
set(CMAKE_CXX_STANDARD_REQUIRED ON)
set(CMAKE_CXX_EXTENSIONS OFF)
set(CMAKE_CXX_VISIBILITY_PRESET hidden)
set(CMAKE_VISIBILITY_INLINES_HIDDEN ON)
set(CMAKE_POSITION_INDEPENDENT_CODE ON)
set(CMAKE_EXPORT_COMPILE_COMMANDS ON)
if(NOT CMAKE_BUILD_TYPE AND NOT CMAKE_CONFIGURATION_TYPES)
  set(CMAKE_BUILD_TYPE Release)
endif()

# Carried by every target of ours; a parent project's targets are not touched.
add_library(dynaflow_options INTERFACE)
target_compile_options(dynaflow_options INTERFACE -Wall -Wextra -Wpedantic -Werror)
if(CMAKE_CXX_COMPILER_ID STREQUAL "GNU")
  # GCC 12 and 13 report these inside libstdc++ itself once it is inlined: shown, not fatal.
  target_compile_options(dynaflow_options INTERFACE
    -Wno-error=restrict -Wno-error=stringop-overflow -Wno-error=array-bounds)
  # GCC 12 believes a std::variant's inactive members to be read when it is moved: pages of noise.
  target_compile_options(dynaflow_options INTERFACE -Wno-maybe-uninitialized)
endif()
if(DYNAFLOW_SANITIZE STREQUAL "address")
  set(dynaflow_sanitizers -fsanitize=address,undefined -fno-sanitize-recover=all)
  if(DYNAFLOW_BUILD_FUZZ)
    list(APPEND dynaflow_sanitizers -fsanitize=fuzzer-no-link)
  endif()
elseif(DYNAFLOW_SANITIZE STREQUAL "thread")
  set(dynaflow_sanitizers -fsanitize=thread)
elseif(NOT DYNAFLOW_SANITIZE STREQUAL "none")
  message(FATAL_ERROR "DYNAFLOW_SANITIZE is '${DYNAFLOW_SANITIZE}'; use address, thread or none")
endif()
if(dynaflow_sanitizers)
  if(DYNAFLOW_BUILD_PYTHON OR DYNAFLOW_BUILD_TORCH)
    message(FATAL_ERROR "Sanitizers cover the core only: turn DYNAFLOW_BUILD_PYTHON and "
                        "DYNAFLOW_BUILD_TORCH off")
  endif()
  target_compile_options(dynaflow_options INTERFACE ${dynaflow_sanitizers} -fno-omit-frame-pointer)
  target_link_options(dynaflow_options INTERFACE ${dynaflow_sanitizers})
endif()

# dynaflow_layer(name [GLOBS pattern...] [DEPS layer-or-target...])
#
# A static library from src/<name>/*.cc. A layer that has no source yet becomes an INTERFACE
# library, so that a layer can start as headers and nobody has to edit CMake to add a file.
function(dynaflow_layer name)
  cmake_parse_arguments(arg "" "" "GLOBS;DEPS" ${ARGN})
  if(NOT arg_GLOBS)
    set(arg_GLOBS "*.cc")
  endif()
  list(TRANSFORM arg_GLOBS PREPEND "${CMAKE_CURRENT_SOURCE_DIR}/${name}/")
  file(GLOB sources CONFIGURE_DEPENDS ${arg_GLOBS})
  set(target dynaflow_${name})
  if(sources)
    add_library(${target} STATIC ${sources})
    set(scope PUBLIC)
    target_link_libraries(${target} PRIVATE $<BUILD_INTERFACE:dynaflow_options>)
  else()
    add_library(${target} INTERFACE)
    set(scope INTERFACE)
  endif()
  add_library(dynaflow::${name} ALIAS ${target})
  target_include_directories(${target} ${scope}
    ${DynaFlow_SOURCE_DIR}/include ${DynaFlow_SOURCE_DIR}/src)
  foreach(dep IN LISTS arg_DEPS)
    if(TARGET dynaflow_${dep})
      target_link_libraries(${target} ${scope} dynaflow_${dep})
    else()
      target_link_libraries(${target} ${scope} ${dep})
    endif()
  endforeach()
  set_property(GLOBAL APPEND PROPERTY DYNAFLOW_LAYERS ${target})
endfunction()

# Where a shared object for the Python package goes: next to the sources in a working copy
# (DYNAFLOW_INPLACE), into the wheel when scikit-build-core drives, else into the build folder.
# The core inside it stays private: two artifacts of one process must not share its symbols.
function(dynaflow_python_artifact target)
  target_link_options(${target} PRIVATE LINKER:--exclude-libs,ALL)
  if(DYNAFLOW_INPLACE)
    set(folder ${DynaFlow_SOURCE_DIR}/python/dynaflow)
  else()
    set(folder ${DynaFlow_BINARY_DIR}/python/dynaflow)
  endif()
  set_target_properties(${target} PROPERTIES LIBRARY_OUTPUT_DIRECTORY ${folder})
  install(TARGETS ${target} LIBRARY DESTINATION dynaflow)
endfunction()

# One static library for each module of agent/, one unit-test binary for each module with tests.

# GCC 12 reports overlapping copies in std::string concatenation that are none (its bug 105651): -Wno-restrict.
# Nor are warnings errors in sanitizer builds: instrumentation makes GCC see faults where there are none.
set(METAL_WARNINGS -Wall -Wextra -Wshadow -Wconversion -Wnon-virtual-dtor -Wno-restrict)
if(METAL_WERROR AND NOT METAL_SANITIZE)
  list(APPEND METAL_WARNINGS -Werror)
endif()

# metal_unity(TARGET WHAT): compiles files of a target in groups when METAL_UNITY names WHAT, or ALL.
function(metal_unity target what)
  if(NOT METAL_UNITY STREQUAL "ALL" AND NOT METAL_UNITY STREQUAL what)
    return()
  endif()
  get_target_property(sources ${target} SOURCES)
  execute_process(COMMAND ${CMAKE_SOURCE_DIR}/tools/dev/unity 8 "${METAL_UNITY_ALONE}" ${sources} OUTPUT_VARIABLE groups COMMAND_ERROR_IS_FATAL ANY)
  string(REGEX MATCHALL "[^\n]+" groups "${groups}")
  foreach(line IN LISTS groups)
    string(REGEX MATCH "^([0-9]+) (.*)$" line "${line}")
    set_source_files_properties(${CMAKE_MATCH_2} PROPERTIES UNITY_GROUP ${target}_${CMAKE_MATCH_1})
  endforeach()
  set_target_properties(${target} PROPERTIES UNITY_BUILD ON UNITY_BUILD_MODE GROUP)
  # Which files go together depends on what is in them.
  set_property(DIRECTORY APPEND PROPERTY CMAKE_CONFIGURE_DEPENDS ${sources} ${CMAKE_SOURCE_DIR}/tools/dev/unity)
endfunction()

# A type in an unnamed namespace of an included file is taken for one of a header.
if(METAL_UNITY STREQUAL "ALL")
  list(APPEND METAL_WARNINGS -Wno-subobject-linkage)
endif()

# metal_module(NAME [EXCEPT file...] [DEPS module...] [LIBS target...]): library metal_NAME from every .cc file in the current folder
# and its rooms, but for some.
function(metal_module name)
  cmake_parse_arguments(ARG "" "" "EXCEPT;DEPS;LIBS" ${ARGN})
  file(GLOB sources CONFIGURE_DEPENDS ${CMAKE_CURRENT_SOURCE_DIR}/*.cc ${CMAKE_CURRENT_SOURCE_DIR}/*/*.cc)
  list(TRANSFORM ARG_EXCEPT PREPEND ${CMAKE_CURRENT_SOURCE_DIR}/)
  list(REMOVE_ITEM sources "" ${ARG_EXCEPT})
  list(TRANSFORM ARG_DEPS PREPEND metal_)
  if(NOT sources)
    add_library(metal_${name} INTERFACE)
    target_link_libraries(metal_${name} INTERFACE ${ARG_DEPS} ${ARG_LIBS})
    return()
  endif()
  add_library(metal_${name} STATIC ${sources})
  target_compile_options(metal_${name} PRIVATE ${METAL_WARNINGS})
  target_link_libraries(metal_${name} PUBLIC ${ARG_DEPS} ${ARG_LIBS})
  # Under sanitizers for speed alone; the other builds prove that includes are whole.
  if(METAL_SANITIZE)
    target_compile_options(metal_${name} PRIVATE -fpch-preprocess)
    target_precompile_headers(metal_${name} PRIVATE <algorithm> <functional> <map> <memory> <optional> <span> <string> <vector>
      <absl/status/statusor.h> <absl/time/time.h> <fmt/format.h>)
  endif()
  metal_unity(metal_${name} LIBRARIES)
endfunction()

# How unit tests are compiled. Unoptimised: half of a build's time would go into optimising test bodies, and their own
# arithmetic is not what UndefinedBehaviorSanitizer is for.
set(METAL_TEST_OPTIONS ${METAL_WARNINGS} -Wno-conversion -O0 -pthread -fpch-preprocess)
if(METAL_SANITIZE MATCHES "undefined")
  list(APPEND METAL_TEST_OPTIONS -fno-sanitize=undefined)
endif()

# metal_unit_tests(MODULE [LIBS target...]): binary test_MODULE from tests/unit/MODULE/*_test.cc and one level of folders below.
function(metal_unit_tests name)
  cmake_parse_arguments(ARG "" "" "LIBS" ${ARGN})
  file(GLOB sources CONFIGURE_DEPENDS ${CMAKE_CURRENT_SOURCE_DIR}/${name}/*.cc ${CMAKE_CURRENT_SOURCE_DIR}/${name}/*/*.cc)
  if(NOT sources)
    return()
  endif()
  add_executable(test_${name} ${sources})
  target_compile_options(test_${name} PRIVATE ${METAL_TEST_OPTIONS})
  target_precompile_headers(test_${name} REUSE_FROM metal_test_prelude)
  metal_unity(test_${name} TESTS)
  target_link_libraries(test_${name} PRIVATE metal_${name} metal_harness GTest::gmock ${ARG_LIBS})
  gtest_discover_tests(test_${name} TEST_PREFIX ${name}. DISCOVERY_TIMEOUT 60)
endfunction()

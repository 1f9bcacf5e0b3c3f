# What a preset adds to every target of the project: sanitizers, coverage or fuzzing, and in an
# optimised build the compiler's hardening, since the program reads hostile bytes.
set(FLEET_SANITIZE "" CACHE STRING "Sanitizers, as in -fsanitize=: 'address,undefined', 'thread'")
option(FLEET_COVERAGE "Count executed lines (gcov)" OFF)
option(FLEET_FUZZ "Build tests/fuzz with libFuzzer (clang)" OFF)

if(FLEET_SANITIZE)
  # Without no-recover a test that met undefined behaviour would still end well.
  set(sanitize -fsanitize=${FLEET_SANITIZE} -fno-sanitize-recover=undefined)
  target_compile_options(fleet_flags INTERFACE ${sanitize} -fno-omit-frame-pointer)
  target_link_options(fleet_flags INTERFACE ${sanitize})
endif()

if(FLEET_COVERAGE)
  target_compile_options(fleet_flags INTERFACE --coverage -fprofile-update=atomic)
  target_link_options(fleet_flags INTERFACE --coverage)
endif()

if(FLEET_FUZZ)
  if(NOT CMAKE_C_COMPILER_ID MATCHES "Clang")
    message(FATAL_ERROR "The fuzz preset needs clang: libFuzzer is a part of it.")
  endif()
  target_compile_options(fleet_flags INTERFACE -fsanitize=fuzzer-no-link)
endif()

# Fortify needs optimisation and gets in the way of AddressSanitizer's own checks.
if(CMAKE_BUILD_TYPE MATCHES "^Rel" AND NOT FLEET_SANITIZE)
  target_compile_options(fleet_flags INTERFACE -fstack-protector-strong -U_FORTIFY_SOURCE
    -D_FORTIFY_SOURCE=2)
  target_link_options(fleet_flags INTERFACE -Wl,-z,relro -Wl,-z,now)
endif()

# The libraries fleet stands on. All are Debian packages; libssh2 must be 1.11.1 or newer
# (older ones cannot speak to a default NixOS sshd), so scripts/build may have put one into
# build/deps, which is looked into first.
find_package(PkgConfig REQUIRED)
find_package(Threads REQUIRED)
find_package(OpenSSL REQUIRED COMPONENTS Crypto)

function(fleet_require target module)
  pkg_check_modules(${target} IMPORTED_TARGET ${module})
  if(NOT ${target}_FOUND)
    message(FATAL_ERROR "${module} is missing. Run scripts/build, which installs what fleet needs.")
  endif()
endfunction()

fleet_require(libuv libuv)
fleet_require(cjson libcjson)
fleet_require(libgit2 libgit2)
fleet_require(libcurl libcurl)
fleet_require(libzstd libzstd)
fleet_require(ncursesw ncursesw)

add_library(fleet_libssh2 INTERFACE)
set(FLEET_DEPS ${PROJECT_SOURCE_DIR}/build/deps CACHE PATH "Where scripts/libssh2 installed")
if(EXISTS ${FLEET_DEPS}/libssh2.stamp)
  target_include_directories(fleet_libssh2 SYSTEM INTERFACE ${FLEET_DEPS}/include)
  target_link_libraries(fleet_libssh2 INTERFACE ${FLEET_DEPS}/lib/libssh2.a OpenSSL::Crypto)
else()
  pkg_check_modules(libssh2 IMPORTED_TARGET "libssh2>=1.11.1")
  if(NOT libssh2_FOUND)
    message(FATAL_ERROR "libssh2 1.11.1 or newer is missing. Run scripts/build, which builds it "
      "from Debian 13's source package.")
  endif()
  target_link_libraries(fleet_libssh2 INTERFACE PkgConfig::libssh2)
endif()

# fleet_embed(TARGET FOLDER PATTERN NAME): every file of FOLDER that matches PATTERN becomes a
# C string `NAME_<stem>` (and NAME_<stem>_len), declared in a generated header NAME.h.
# The target `generated` makes all of them, which the linters want before anything is compiled.
add_custom_target(generated)

function(fleet_embed target folder pattern name)
  file(GLOB files CONFIGURE_DEPENDS ${PROJECT_SOURCE_DIR}/${folder}/${pattern})
  if(NOT files)
    return()
  endif()
  set(out ${PROJECT_BINARY_DIR}/generated)
  add_custom_command(
    OUTPUT ${out}/${name}.c ${out}/${name}.h
    COMMAND ${CMAKE_COMMAND} -DOUT=${out} -DNAME=${name} "-DFILES=${files}"
            -P ${PROJECT_SOURCE_DIR}/cmake/embed_script.cmake
    DEPENDS ${files} ${PROJECT_SOURCE_DIR}/cmake/embed_script.cmake
    VERBATIM)
  add_custom_target(${name}_generated DEPENDS ${out}/${name}.c ${out}/${name}.h)
  add_dependencies(generated ${name}_generated)
  add_library(${name} STATIC ${out}/${name}.c ${out}/${name}.h)
  add_dependencies(${name} ${name}_generated)
  target_include_directories(${name} PUBLIC ${out})
  get_target_property(type ${target} TYPE)
  if(type STREQUAL "INTERFACE_LIBRARY")
    target_link_libraries(${target} INTERFACE ${name})
  else()
    target_link_libraries(${target} PUBLIC ${name})
  endif()
endfunction()

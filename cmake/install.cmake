# `cmake --install`: the program, the JSON Schemas, the example, the manual page and the shell
# completions. The completions are asked of the installed program itself, which makes them from
# its command table, so they cannot differ from it.
include(GNUInstallDirs)

install(TARGETS fleet RUNTIME DESTINATION ${CMAKE_INSTALL_BINDIR})

file(GLOB schemas CONFIGURE_DEPENDS
  ${PROJECT_SOURCE_DIR}/*.schema.json
  ${PROJECT_SOURCE_DIR}/*/*.schema.json)
install(FILES ${schemas} DESTINATION ${CMAKE_INSTALL_DATADIR}/fleet)
install(FILES fleet.example.json README.md DESTINATION ${CMAKE_INSTALL_DOCDIR} OPTIONAL)

file(GLOB manual CONFIGURE_DEPENDS ${PROJECT_SOURCE_DIR}/docs/*.1)
install(FILES ${manual} DESTINATION ${CMAKE_INSTALL_MANDIR}/man1)

if(NOT CMAKE_CROSSCOMPILING)
  install(CODE "
    set(data \"\$ENV{DESTDIR}\${CMAKE_INSTALL_PREFIX}/${CMAKE_INSTALL_DATADIR}\")
    foreach(pair bash:bash-completion/completions/fleet zsh:zsh/site-functions/_fleet
                 fish:fish/vendor_completions.d/fleet.fish)
      string(REGEX MATCH \"([^:]*):(.*)\" pair \"\${pair}\")
      set(shell \"\${CMAKE_MATCH_1}\")
      set(file \"\${data}/\${CMAKE_MATCH_2}\")
      execute_process(COMMAND \"$<TARGET_FILE:fleet>\" completion \${shell}
        OUTPUT_VARIABLE text ERROR_QUIET RESULT_VARIABLE result)
      if(result EQUAL 0 AND text)
        message(STATUS \"Installing: \${file}\")
        file(WRITE \"\${file}\" \"\${text}\")
      else()
        message(STATUS \"No \${shell} completion: this build of fleet has none\")
      endif()
    endforeach()")
endif()

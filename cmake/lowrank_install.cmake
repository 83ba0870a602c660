# Install rules: headers, targets, package files for find_package and pkg-config. Everything is independent of the
# architecture, because nothing is compiled.
include(CMakePackageConfigHelpers)

set(package_dir "${CMAKE_INSTALL_DATADIR}/cmake/lowrank")

install(TARGETS lowrank EXPORT lowrank_targets FILE_SET HEADERS)
install(EXPORT lowrank_targets NAMESPACE lowrank:: DESTINATION "${package_dir}")
if(TARGET lowrank_io)
  # A second export, loaded only if nlohmann_json is there.
  install(TARGETS lowrank_io EXPORT lowrank_io_targets)
  install(EXPORT lowrank_io_targets NAMESPACE lowrank:: DESTINATION "${package_dir}")
endif()

configure_package_config_file(cmake/lowrank-config.cmake.in "${PROJECT_BINARY_DIR}/package/lowrank-config.cmake"
                              INSTALL_DESTINATION "${package_dir}")
write_basic_package_version_file("${PROJECT_BINARY_DIR}/package/lowrank-config-version.cmake"
                                 COMPATIBILITY SameMinorVersion ARCH_INDEPENDENT)
install(FILES "${PROJECT_BINARY_DIR}/package/lowrank-config.cmake"
              "${PROJECT_BINARY_DIR}/package/lowrank-config-version.cmake" cmake/lowrank_blas.cmake
              cmake/lowrank_cuda.cmake
        DESTINATION "${package_dir}")

configure_file(cmake/lowrank.pc.in "${PROJECT_BINARY_DIR}/package/lowrank.pc" @ONLY)
install(FILES "${PROJECT_BINARY_DIR}/package/lowrank.pc" DESTINATION "${CMAKE_INSTALL_DATADIR}/pkgconfig")
install(FILES LICENSE DESTINATION "${CMAKE_INSTALL_DATADIR}/licenses/lowrank")

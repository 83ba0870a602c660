# Defines lowrank::blas (lowrank::lowrank + CBLAS + LAPACKE) when OpenBLAS and LAPACKE are installed. The build and the
# installed package both include this file, so no library path of the building machine is ever exported.
if(TARGET lowrank::blas)
  return()
endif()

find_path(LOWRANK_CBLAS_INCLUDE_DIR cblas.h PATH_SUFFIXES openblas)
find_path(LOWRANK_LAPACKE_INCLUDE_DIR lapacke.h PATH_SUFFIXES openblas lapacke)
find_library(LOWRANK_OPENBLAS_LIBRARY openblas)
find_library(LOWRANK_LAPACKE_LIBRARY NAMES lapacke openblas)  # upstream's OpenBLAS contains LAPACKE, Debian's does not
mark_as_advanced(LOWRANK_CBLAS_INCLUDE_DIR LOWRANK_LAPACKE_INCLUDE_DIR LOWRANK_OPENBLAS_LIBRARY LOWRANK_LAPACKE_LIBRARY)

if(LOWRANK_CBLAS_INCLUDE_DIR AND LOWRANK_LAPACKE_INCLUDE_DIR AND LOWRANK_OPENBLAS_LIBRARY AND LOWRANK_LAPACKE_LIBRARY)
  set(lowrank_blas_FOUND TRUE)
  add_library(lowrank::blas INTERFACE IMPORTED GLOBAL)
  set(lowrank_blas_libraries "${LOWRANK_LAPACKE_LIBRARY}" "${LOWRANK_OPENBLAS_LIBRARY}")
  list(REMOVE_DUPLICATES lowrank_blas_libraries)
  target_link_libraries(lowrank::blas INTERFACE lowrank::lowrank ${lowrank_blas_libraries})
  target_include_directories(lowrank::blas SYSTEM INTERFACE "${LOWRANK_CBLAS_INCLUDE_DIR}"
                                                            "${LOWRANK_LAPACKE_INCLUDE_DIR}")
else()
  set(lowrank_blas_FOUND FALSE)
endif()

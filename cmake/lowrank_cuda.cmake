# Defines lowrank::cuda (lowrank::lowrank + the CUDA runtime, cuBLAS and cuSOLVER + what nvcc has to be told) when the CUDA
# toolkit is installed. The build and the installed package both include this file, so no path of the building machine is
# ever exported. A project that compiles .cu files says enable_language(CUDA) itself; the order does not matter.
if(TARGET lowrank::cuda)
  return()
endif()

find_package(CUDAToolkit 12.0 QUIET GLOBAL)
if(TARGET CUDA::cudart AND TARGET CUDA::cublas AND TARGET CUDA::cusolver)
  set(lowrank_cuda_FOUND TRUE)
  # The language version as an option: CMake before 3.26 knows no C++20 of nvcc, and refuses CUDA_STANDARD 20.
  # 20012: defaulted members of Eigen's types that are called from host and device.
  set(lowrank_nvcc_options -std=c++20 --extended-lambda --expt-relaxed-constexpr "SHELL:-diag-suppress 20012")
  add_library(lowrank::cuda INTERFACE IMPORTED GLOBAL)
  target_link_libraries(lowrank::cuda INTERFACE lowrank::lowrank CUDA::cudart CUDA::cublas CUDA::cusolver)
  target_compile_options(lowrank::cuda INTERFACE "$<$<COMPILE_LANGUAGE:CUDA>:${lowrank_nvcc_options}>")
else()
  set(lowrank_cuda_FOUND FALSE)
endif()

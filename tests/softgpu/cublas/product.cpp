#include "cublas/product.hpp"

#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include <algorithm>
#include <bit>
#include <cstring>

namespace softgpu {
namespace {

template <class T>
T element_at(char const* at) {
  T value;
  std::memcpy(&value, at, sizeof value);
  return value;
}

// To the nearest of 10 mantissa bits, ties away from zero.
float to_tf32(float value) {
  auto const bits = std::bit_cast<std::uint32_t>(value);
  bool const finite = (bits & 0x7F800000u) != 0x7F800000u;
  return finite ? std::bit_cast<float>((bits + 0x1000u) & ~0x1FFFu) : value;
}

float rounded(float value, input_rounding rounding) {
  switch (rounding) {
    case input_rounding::none:
      return value;
    case input_rounding::tf32:
      return to_tf32(value);
    case input_rounding::bf16:
      return __bfloat162float(__float2bfloat16_rn(value));
    case input_rounding::fp16:
      return __half2float(__float2half_rn(value));
  }
  return value;
}

template <class T>
T number_at(char const* at, cudaDataType_t type) {
  switch (type) {
    case CUDA_R_64F:
      return static_cast<T>(element_at<double>(at));
    case CUDA_R_16BF:
      return static_cast<T>(__bfloat162float(element_at<__nv_bfloat16>(at)));
    case CUDA_R_16F:
      return static_cast<T>(__half2float(element_at<__half>(at)));
    default:
      return static_cast<T>(element_at<float>(at));
  }
}

}  // namespace

std::size_t width_of(cudaDataType_t type) {
  switch (type) {
    case CUDA_R_64F:
      return 8;
    case CUDA_R_32F:
      return 4;
    case CUDA_R_16BF:
    case CUDA_R_16F:
      return 2;
    default:
      return 0;
  }
}

template <class T>
std::vector<T> widened(char const* elements, operand const& matrix, cudaDataType_t type, transposition op,
                       input_rounding rounding) {
  std::vector<T> numbers(static_cast<std::size_t>(matrix.rows * matrix.cols));
  bool const flipped = op == transposition::transposed;
  for (std::int64_t j = 0; j < matrix.cols; ++j)
    for (std::int64_t i = 0; i < matrix.rows; ++i) {
      T value = number_at<T>(elements + static_cast<std::size_t>(matrix.ld * j + i) * matrix.width, type);
      if (rounding != input_rounding::none) value = static_cast<T>(rounded(static_cast<float>(value), rounding));
      numbers[static_cast<std::size_t>(flipped ? i * matrix.cols + j : j * matrix.rows + i)] = value;
    }
  return numbers;
}
template std::vector<float> widened(char const*, operand const&, cudaDataType_t, transposition, input_rounding);
template std::vector<double> widened(char const*, operand const&, cudaDataType_t, transposition, input_rounding);

template <class T>
std::vector<T> product(std::vector<T> const& a, std::vector<T> const& b, std::int64_t m, std::int64_t n,
                       std::int64_t k) {
  constexpr std::int64_t rows = 512, depth = 64;  // a panel of a stays in the cache while all columns of b pass
  std::vector<T> sums(static_cast<std::size_t>(m * n));
  for (std::int64_t i0 = 0; i0 < m; i0 += rows)
    for (std::int64_t p0 = 0; p0 < k; p0 += depth)
      for (std::int64_t j = 0; j < n; ++j) {
        T* const sum = sums.data() + j * m;
        for (std::int64_t p = p0; p < std::min(k, p0 + depth); ++p) {
          T const factor = b[static_cast<std::size_t>(j * k + p)];
          T const* const column = a.data() + p * m;
          for (std::int64_t i = i0; i < std::min(m, i0 + rows); ++i) sum[i] += column[i] * factor;
        }
      }
  return sums;
}
template std::vector<float> product(std::vector<float> const&, std::vector<float> const&, std::int64_t, std::int64_t,
                                    std::int64_t);
template std::vector<double> product(std::vector<double> const&, std::vector<double> const&, std::int64_t, std::int64_t,
                                     std::int64_t);

template <class T>
void update_element(char* element, cudaDataType_t type, T alpha, T value, T beta) {
  T result = alpha * value;
  if (beta != T{0}) result += beta * number_at<T>(element, type);
  auto const store = [element](auto narrow) { std::memcpy(element, &narrow, sizeof narrow); };
  switch (type) {
    case CUDA_R_64F:
      return store(static_cast<double>(result));
    case CUDA_R_16BF:
      return store(__float2bfloat16_rn(static_cast<float>(result)));
    case CUDA_R_16F:
      return store(__float2half_rn(static_cast<float>(result)));
    default:
      return store(static_cast<float>(result));
  }
}
template void update_element(char*, cudaDataType_t, float, float, float);
template void update_element(char*, cudaDataType_t, double, double, double);

}  // namespace softgpu

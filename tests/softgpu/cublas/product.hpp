// The arithmetic of products: operands widened to the type of the sum, added up in a fixed order.
#pragma once

#include <library_types.h>

#include <cstddef>
#include <cstdint>
#include <vector>

#include "operand.hpp"

namespace softgpu {

enum class transposition { none, transposed };

/// What a multiplication does to its inputs first, as tensor cores do.
enum class input_rounding { none, tf32, bf16, fp16 };

/// Bytes of an element; 0 for types that no call here takes.
std::size_t width_of(cudaDataType_t type);

/// op(matrix) as a dense column-major array of numbers; `elements` is what `operand::read` gave.
template <class T>
std::vector<T> widened(char const* elements, operand const& matrix, cudaDataType_t type, transposition op,
                       input_rounding rounding = input_rounding::none);

/// product (m x n) = a (m x k) · b (k x n), dense and column-major.
template <class T>
std::vector<T> product(std::vector<T> const& a, std::vector<T> const& b, std::int64_t m, std::int64_t n,
                       std::int64_t k);

/// element = alpha · value + beta · element, rounded once to the element's type; beta = 0 does not read.
template <class T>
void update_element(char* element, cudaDataType_t type, T alpha, T value, T beta);

}  // namespace softgpu

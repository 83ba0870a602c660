// Matrices as BLAS and LAPACK calls name them: checked against the allocations they claim to lie in.
#pragma once

#include <cstddef>
#include <cstdint>

namespace softgpu {

/// Which elements a call touches.
enum class triangle { all, lower, upper };

/// A column-major matrix in device memory. `name` appears in reports.
struct operand {
  char const* name;
  void const* pointer;
  std::int64_t rows, cols, ld;
  std::size_t width;  ///< bytes of an element

  /// The elements, if every column lies in the same live allocation; else a report and null. Empty matrices are not
  /// null.
  char* reach(triangle part = triangle::all) const;
  /// The same, and a report and null as well when an element was never written.
  char* read(triangle part = triangle::all) const;
  void written(triangle part = triangle::all) const;
  void spoiled() const;  ///< what a call destroys becomes NaN and unwritten

  operand shifted(std::int64_t elements) const;

 private:
  std::uint64_t begin_of(std::int64_t column, triangle part) const;
  std::size_t bytes_of(std::int64_t column, triangle part) const;
};

/// Whether they share a byte.
bool overlap(operand const& a, operand const& b);

/// Workspaces hold garbage after a call: everything becomes NaN and unwritten. False, and a report, if it is not there.
bool use_up(void* pointer, std::size_t bytes, char const* name);
/// Writes one number to device memory, with the checks of a kernel.
void write_number(int* where, int value, char const* name);

}  // namespace softgpu

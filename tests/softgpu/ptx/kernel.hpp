// A decoded kernel: instructions are function pointers over the 32 lanes of a warp, operands are byte offsets into the
// warp's register file, where constants and special registers have their places, too.
#pragma once

#include <array>
#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <vector>

namespace softgpu {

struct warp;
struct instruction;
using lane_mask = std::uint32_t;
using handler = void (*)(warp&, instruction const&, lane_mask);

enum class flow : std::uint8_t { next, branch, table, barrier, exit };
enum class space : std::uint8_t { generic, global, shared, local, param };
/// Weak accesses race; strong ones (volatile, relaxed) do not, and carry order where they acquire or release.
enum class order : std::uint8_t { weak, relaxed, acquire, release, acquire_release };

struct instruction {
  handler run = nullptr;
  flow kind = flow::next;
  bool negate = false;     ///< of the guard
  std::uint8_t flip = 0;   ///< bit k: predicate operand k is negated
  std::uint8_t count = 1;  ///< elements of a vector access
  std::uint8_t bytes = 0;  ///< of one element
  std::uint8_t wide = 0;   ///< bit 0: d, bit 1: a has 64 bits; bits 4..7: elements of v
  space where = space::generic;
  order ordering = order::weak;
  bool sign_extends = false;
  std::uint8_t option = 0;  ///< whatever else a handler wants to know
  std::uint32_t guard = 0;  ///< of a predicate word; slot 0 is always true
  std::uint32_t d = 0, a = 0, b = 0, c = 0, e = 0;
  std::uint32_t v[4] = {};
  std::int64_t offset = 0;
  std::int32_t target = -1;  ///< instruction of a branch, index of kernel::tables, or a number
};

/// What an instruction was in the text, for reports.
struct origin {
  std::string_view text;
  std::uint32_t place = 0;    ///< index of kernel::places
  std::uint32_t refusal = 0;  ///< index of kernel::refusals, 0 if it is executed
};

struct kernel {
  /// Registers that hold the same for a whole warp, or what makes a lane itself.
  enum special : std::uint8_t {
    tid_x,
    tid_y,
    tid_z,
    ntid_x,
    ntid_y,
    ntid_z,
    ctaid_x,
    ctaid_y,
    ctaid_z,
    nctaid_x,
    nctaid_y,
    nctaid_z,
    laneid,
    warpid,
    nwarpid,
    smid,
    nsmid,
    dynamic_smem_size,
    total_smem_size,
    special_count
  };
  struct parameter {
    std::uint32_t offset, size;
  };

  std::string name;
  int arch = 0;
  std::vector<parameter> parameters;
  std::uint32_t parameter_bytes = 0, static_shared = 0, local_bytes = 0, max_threads = 1024;

  std::vector<instruction> code;
  std::vector<origin> origins;  ///< as many
  std::vector<std::string> places{1}, refusals{1};
  std::vector<std::vector<std::int32_t>> tables;  ///< targets of brx.idx
  std::uint32_t file_bytes = 0;
  std::vector<char> file_image;                         ///< constants and zeroed registers, copied when a warp starts
  std::uint32_t first_constant = 0;                     ///< where the image begins to hold anything but slot 0
  std::array<std::uint32_t, special_count> specials{};  ///< 0: not used
};

}  // namespace softgpu

/// @file
/// The device tile: a warp, each lane with neighbouring elements in registers, 16 bytes an access, shuffles for what crosses lanes.
#pragma once

#include <algorithm>

#include "lowrank/core/cuda/executor.cuh"
#include "lowrank/tile/tile.hpp"

namespace lowrank {

namespace detail {

inline constexpr int warp_size = 32;
inline constexpr unsigned whole_warp = 0xFFFFFFFFU;

/// As many bytes as one access of a lane moves.
template <int Bytes>
struct access_word;
template <>
struct access_word<16> {
  using type = uint4;
};
template <>
struct access_word<8> {
  using type = uint2;
};
template <>
struct access_word<4> {
  using type = unsigned;
};
template <>
struct access_word<2> {
  using type = unsigned short;
};
template <>
struct access_word<1> {
  using type = unsigned char;
};

/// `Count` neighbouring elements of T of one lane, moved by as few accesses as there can be.
template <class T, int Count>
struct lane_block {
  static constexpr int bytes = Count * int{sizeof(T)}, step = bytes < 16 ? bytes : 16, accesses = bytes / step;
  using word = typename access_word<step>::type;
  static_assert(accesses * step == bytes, "lowrank: lanes move whole words");

  T element[Count];

  /// Whether words can be moved at multiples of `bytes` behind p.
  [[nodiscard]] __device__ static bool aligned(void const* p) noexcept {
    return reinterpret_cast<std::uintptr_t>(p) % step == 0;
  }
  __device__ void read(T const* from) noexcept {
    word words[accesses];
#pragma unroll
    for (int i = 0; i < accesses; ++i) words[i] = reinterpret_cast<word const*>(from)[i];
    memcpy(element, words, sizeof words);
  }
  __device__ void write(T* to) const noexcept {
    word words[accesses];
    memcpy(words, element, sizeof words);
    // As plain stores, compilers take some of these apart into elements, having forgotten what is aligned.
#pragma unroll
    for (int i = 0; i < accesses; ++i) {
      if constexpr (step >= 4) __stwb(reinterpret_cast<word*>(to) + i, words[i]);
      else reinterpret_cast<word*>(to)[i] = words[i];
    }
  }
};

}  // namespace detail

/// `Size` consecutive elements, Size / 32 of them in each lane. The same members as `basic_host_tile`, called by all lanes of a
/// warp together.
template <int Size>
struct warp_tile {
  static_assert(Size % detail::warp_size == 0, "lowrank: device tiles are whole warps");
  static constexpr int size = Size, items = Size / detail::warp_size;
  using real = float;
  using fragment = std::array<float, static_cast<std::size_t>(items)>;

  template <class T>
  [[nodiscard]] __device__ fragment load(T const* p, index_t valid) const noexcept {
    auto const raw = read(p, valid);
    fragment out;
    if constexpr (std::same_as<T, bf16> && items % 2 == 0) {
      // Two in a word, each widened by one instruction; compilers take the word apart first.
      std::uint32_t words[items / 2];
      memcpy(words, raw.element, sizeof words);
      each([&](std::size_t k) {
        out[k] = std::bit_cast<float>(k % 2 == 0 ? words[k / 2] << 16 : words[k / 2] & 0xFFFF0000U);
      });
    } else {
      each([&](std::size_t k) { out[k] = to_float(raw.element[k]); });
    }
    return out;
  }
  template <class T>
  __device__ void store(T* p, fragment const& f, index_t valid) const noexcept {
    detail::lane_block<T, items> raw;
    each([&](std::size_t k) { raw.element[k] = from_float<T>(f[k]); });
    write(p, raw, valid);
  }
  template <class F>
  __device__ void each(F const& f) const noexcept {
#pragma unroll
    for (int k = 0; k < items; ++k) f(static_cast<std::size_t>(k));
  }
  template <class Op>
  [[nodiscard]] __device__ float reduce(float init, fragment const& f, Op const& op) const noexcept {
    float value = init;
    each([&](std::size_t k) { value = op(value, f[k]); });
    return across(value, op);
  }
  /// Sum of the first `valid` elements in fp64.
  [[nodiscard]] __device__ double sum(fragment const& f, index_t valid) const noexcept {
    double value = 0;
    each([&](std::size_t k) { value += at(k) < valid ? static_cast<double>(f[k]) : 0.0; });
    return across(value, [](double a, double b) { return a + b; });
  }
  /// `range` for those who ask for the largest magnitude only: 0 and that.
  [[nodiscard]] __device__ value_range magnitude(fragment const& f, index_t valid) const noexcept {
    // Bits of magnitudes sort like them; what is not finite is beyond all others.
    std::uint32_t most = 0;
    each([&](std::size_t k) {
      std::uint32_t const bits = at(k) < valid ? std::bit_cast<std::uint32_t>(f[k]) & 0x7FFFFFFFU : 0;
      most = bits > most ? bits : most;
    });
    most = __reduce_max_sync(detail::whole_warp, most);
    return {.low = 0, .high = std::bit_cast<float>(most), .finite = most < 0x7F800000U};
  }
  [[nodiscard]] __device__ value_range range(fragment const& f, index_t valid) const noexcept {
    // What is behind the last element takes part as a copy of the first one, which lane 0 has.
    float const any = valid == size ? f[0] : __shfl_sync(detail::whole_warp, f[0], 0);
    float low = any, high = any;
    std::uint32_t most = 0;
    each([&](std::size_t k) {
      float const x = at(k) < valid ? f[k] : any;
      low = fminf(x, low), high = fmaxf(x, high);  // NaNs are lost here, and kept in `most`
      std::uint32_t const bits = std::bit_cast<std::uint32_t>(x) & 0x7FFFFFFFU;
      most = bits > most ? bits : most;
    });
    low = from_bits(ordered(__reduce_min_sync(detail::whole_warp, ordered(bits_of(low)))));
    high = from_bits(ordered(__reduce_max_sync(detail::whole_warp, ordered(bits_of(high)))));
    bool const finite = __all_sync(detail::whole_warp, most < 0x7F800000U) != 0;
    return {.low = low + 0.0F, .high = high + 0.0F, .finite = finite};
  }
  template <int Bits, class Decode>
  [[nodiscard]] __device__ fragment load_codes(std::uint8_t const* p, index_t valid,
                                               Decode const& decode) const noexcept {
    fragment out;
    if constexpr (Bits == 8) {
      auto const raw = read(p, valid);
      each([&](std::size_t k) { out[k] = at(k) < valid ? decode(std::int32_t{raw.element[k]}) : 0.0F; });
    } else if constexpr (items == 1) {
      std::uint8_t const both = at(0) < valid ? p[at(0) / 2] : std::uint8_t{};
      out[0] = at(0) < valid ? decode(std::int32_t{at(0) % 2 == 0 ? both >> 4 : both & 0xF}) : 0.0F;
    } else {
      auto const raw = warp_tile<Size / 2>{}.read(p, code_bytes<4>(valid));
      each([&](std::size_t k) {
        std::uint8_t const both = raw.element[k / 2];
        out[k] = at(k) < valid ? decode(std::int32_t{k % 2 == 0 ? both >> 4 : both & 0xF}) : 0.0F;
      });
    }
    return out;
  }
  template <class Book>
  [[nodiscard]] __device__ fragment load_bytes(std::uint8_t const* p, index_t valid, Book const& book,
                                               float factor) const noexcept {
    float const* const table = book.values();
    if constexpr (items % 4 == 0) {
      auto const raw = read(p, valid);
      std::uint32_t words[items / 4];
      memcpy(words, raw.element, sizeof words);
      fragment out;
      each([&](std::size_t k) {
        // Bytes are picked by one instruction, which compilers turn into two when they see what it does.
        std::uint32_t const q = __byte_perm(words[k / 4], 0, 0x4440U + static_cast<std::uint32_t>(k % 4));
        out[k] = at(k) < valid ? factor * __ldg(table + q) : 0.0F;
      });
      return out;
    } else {
      return load_codes<8>(p, valid, [&](std::int32_t q) { return factor * __ldg(table + q); });
    }
  }
  template <int Bits, class Encode, class... More>
  __device__ void store_codes(std::uint8_t* p, fragment const& f, index_t valid, Encode const& encode,
                              More const&... more) const noexcept {
    // What is behind the first elements has no part in their scale, and codecs need not bear it.
    auto const code = [&](std::size_t k) {
      return static_cast<std::uint8_t>(at(k) < valid ? encode(f[k], more[k]...) : 0);
    };
    if constexpr (Bits == 8) {
      detail::lane_block<std::uint8_t, items> raw;
      each([&](std::size_t k) { raw.element[k] = code(k); });
      write(p, raw, valid);
    } else if constexpr (items == 1) {
      unsigned const mine = code(0), next = __shfl_down_sync(detail::whole_warp, mine, 1);
      if (at(0) % 2 == 0 && at(0) < valid) p[at(0) / 2] = static_cast<std::uint8_t>(mine << 4 | next);
    } else {
      using half = warp_tile<Size / 2>;
      detail::lane_block<std::uint8_t, half::items> raw;
      half{}.each(
          [&](std::size_t k) { raw.element[k] = static_cast<std::uint8_t>(code(2 * k) << 4 | code(2 * k + 1)); });
      half{}.write(p, raw, code_bytes<4>(valid));
    }
  }
  [[nodiscard]] __device__ fragment uniform_16(rng_key const& key, std::uint64_t first) const noexcept {
    auto const bits = random_16_of(key, first);
    fragment out;
    each([&](std::size_t k) { out[k] = static_cast<float>(static_cast<std::int32_t>(bits[k])) * 0x1p-16F; });
    return out;
  }
  __device__ void store_stochastic(bf16* p, fragment const& f, index_t valid, rng_key const& key,
                                   std::uint64_t first) const noexcept {
    auto bits = random_16_of(key, first);
    // What stays finite whatever is added needs no look at each element.
    if (largest_bits(f) < 0x7F7F0000U) each([&](std::size_t k) { bits[k] += std::bit_cast<std::uint32_t>(f[k]); });
    else each([&](std::size_t k) { bits[k] = rounded_up(std::bit_cast<std::uint32_t>(f[k]), bits[k]); });
    detail::lane_block<bf16, items> raw;
    if constexpr (items % 2 == 0) {
      std::uint32_t words[items / 2];
#pragma unroll
      for (std::size_t k = 0; k < items; k += 2) words[k / 2] = __byte_perm(bits[k], bits[k + 1], 0x7632);
      memcpy(raw.element, words, sizeof words);
    } else {
      each([&](std::size_t k) { raw.element[k] = bf16{static_cast<std::uint16_t>(bits[k] >> 16)}; });
    }
    write(p, raw, valid);
  }
  template <class F>
  __device__ void once(F const& f) const noexcept {
    if (lane() == 0) f();
  }
  /// *flag = 1, which others may do at the same time.
  __device__ void raise(std::int32_t* flag) const noexcept {
    if (lane() == 0) atomicExch(flag, 1);
  }

  // For tiles of other sizes.
  template <class T>
  [[nodiscard]] __device__ detail::lane_block<T, items> read(T const* p, index_t valid) const noexcept {
    detail::lane_block<T, items> raw;
    if (valid == size && raw.aligned(p)) {
      raw.read(p + lane() * items);
    } else {
      __syncwarp();  // all lanes are here; without it ptxas makes every tile pay for what hardly any takes
      each([&](std::size_t k) { raw.element[k] = at(k) < valid ? p[at(k)] : T{}; });
    }
    return raw;
  }
  template <class T>
  __device__ void write(T* p, detail::lane_block<T, items> const& raw, index_t valid) const noexcept {
    if (valid == size && raw.aligned(p)) {
      raw.write(p + lane() * items);
    } else {
      __syncwarp();
      each([&](std::size_t k) {
        if (at(k) < valid) p[at(k)] = raw.element[k];
      });
    }
  }

 private:
  /// `to_bf16_stochastic` with the half that is dropped still there: what is no number stays what it is, and nothing becomes
  /// infinite.
  [[nodiscard]] __device__ static std::uint32_t rounded_up(std::uint32_t u, std::uint32_t random) noexcept {
    std::uint32_t const magnitude = u & 0x7FFFFFFFU, kept = magnitude > 0x7F800000U ? u | 0x400000U : u;
    return magnitude + random >= 0x7F800000U ? kept : u + random;
  }
  /// Bits of a float as an integer that sorts like it, and back.
  [[nodiscard]] __device__ static std::int32_t ordered(std::int32_t bits) noexcept {
    return bits ^ (bits >> 31 & 0x7FFFFFFF);
  }
  /// Bits of this lane's largest magnitude, which sort like it; what is not finite is beyond all others.
  [[nodiscard]] __device__ static std::uint32_t largest_bits(fragment const& f) noexcept {
    std::uint32_t most = 0;
#pragma unroll
    for (int k = 0; k < items; ++k) {
      std::uint32_t const bits = std::bit_cast<std::uint32_t>(f[static_cast<std::size_t>(k)]) & 0x7FFFFFFFU;
      most = bits > most ? bits : most;
    }
    return most;
  }
  /// random_16(key, first + i) for the elements of this lane. `first` is a multiple of 8.
  [[nodiscard]] __device__ static std::array<std::uint32_t, static_cast<std::size_t>(items)> random_16_of(
      rng_key const& key, std::uint64_t first) noexcept {
    std::array<std::uint32_t, static_cast<std::size_t>(items)> out;
    constexpr int together = items < 8 ? items : 8;  // of one block of random words
#pragma unroll
    for (int begin = 0; begin < items; begin += together) {
      std::uint64_t const element = first + static_cast<std::uint64_t>(lane() * items + begin);
      auto const words = random_block(key, element / 8);
#pragma unroll
      for (int k = 0; k < together; ++k) {
        auto const within =
            items < 8 ? static_cast<unsigned>(element + static_cast<std::uint64_t>(k)) % 8 : static_cast<unsigned>(k);
        std::uint32_t const word = detail::word_of(words, within / 2);
        out[static_cast<std::size_t>(begin + k)] = word >> (within % 2 * 16) & 0xFFFFU;
      }
    }
    return out;
  }
  [[nodiscard]] __device__ static int lane() noexcept {
    return static_cast<int>(threadIdx.x % unsigned{detail::warp_size});
  }
  /// Number of this lane's element k in the tile.
  [[nodiscard]] __device__ static int at(std::size_t k) noexcept { return lane() * items + static_cast<int>(k); }
  template <class T, class Op>
  [[nodiscard]] __device__ static T across(T value, Op const& op) noexcept {
#pragma unroll
    for (int step = detail::warp_size / 2; step > 0; step /= 2)
      value = op(value, __shfl_xor_sync(detail::whole_warp, value, step));
    return value;
  }
};

/// How kernels over tiles are launched on a device.
struct launch_policy {
  int threads;             ///< of a block
  int blocks_a_processor;  ///< at most; what is more is done by the same blocks in turns
};
/// By compute capability (90: Hopper).
[[nodiscard]] constexpr launch_policy launch_policy_of(int capability) noexcept {
  return capability >= 90 ? launch_policy{256, 16} : launch_policy{256, 8};
}

namespace detail {

/// body(tile, first, valid) for every tile of `count` elements, a warp each.
template <int Size, class Body>
__global__ void __launch_bounds__(256, 3) run_tiles(index_t const count, Body const body) {
  index_t const warps = index_t{gridDim.x} * (blockDim.x / warp_size);
  index_t const mine = (index_t{blockIdx.x} * blockDim.x + threadIdx.x) / warp_size;
  // Whole tiles apart from the ragged one, so that nothing in them asks how many elements there are; by number, so that
  // compilers see what `first` is a multiple of, and ask for alignment once.
  index_t const whole = count / Size;
  index_t number = mine;
  for (; number < whole; number += warps) body(warp_tile<Size>{}, number * Size, index_t{Size});
  if (number == whole && whole * Size < count) body(warp_tile<Size>{}, whole * Size, count - whole * Size);
}
/// body(tile, line, first, valid) for every tile of every line.
template <int Size, class Body>
__global__ void __launch_bounds__(256) run_line_tiles(index_t const lines, index_t const length, Body const body) {
  index_t const warps = index_t{gridDim.x} * (blockDim.x / warp_size), a_line = (length + Size - 1) / Size;
  index_t const mine = (index_t{blockIdx.x} * blockDim.x + threadIdx.x) / warp_size;
  for (index_t number = mine; number < lines * a_line; number += warps) {
    // A division of 64 bits costs as much as a codec, and most tensors are one line.
    index_t const line = lines == 1 ? 0 : number / a_line, first = (number - line * a_line) * Size;
    if (first + Size <= length) body(warp_tile<Size>{}, line, first, index_t{Size});
    else body(warp_tile<Size>{}, line, first, length - first);
  }
}

/// Blocks for that many warps, by the policy of the executor's device.
[[nodiscard]] inline unsigned blocks_for(cuda_executor const& exec, index_t warps) {
  auto const policy = launch_policy_of(exec.capability());
  index_t const a_block = policy.threads / warp_size, most = index_t{exec.processors()} * policy.blocks_a_processor;
  return static_cast<unsigned>(std::min((warps + a_block - 1) / a_block, most));
}
template <int Size, class Body>
void launch_warps(cuda_executor& exec, index_t count, Body const& body) {
  if (count == 0) return;
  auto const threads = static_cast<unsigned>(launch_policy_of(exec.capability()).threads);
  run_tiles<Size><<<blocks_for(exec, (count + Size - 1) / Size), threads, 0, exec.stream()>>>(count, body);
  cuda_executor::check_launch("a kernel over tiles");
}
template <int Size, class Body>
void launch_line_warps(cuda_executor& exec, extents shape, Body const& body) {
  if (shape.size() == 0) return;
  auto const threads = static_cast<unsigned>(launch_policy_of(exec.capability()).threads);
  index_t const tiles = shape.rows * ((shape.cols + Size - 1) / Size);
  run_line_tiles<Size><<<blocks_for(exec, tiles), threads, 0, exec.stream()>>>(shape.rows, shape.cols, body);
  cuda_executor::check_launch("a kernel over lines of tiles");
}

}  // namespace detail

/// See the overloads for `host_executor`. A tile is run by one warp.
template <class Body>
void launch_tiles(cuda_executor& exec, index_t count, Body const& body) {
  detail::launch_warps<256>(exec, count, body);
}
template <int Size, class Body>
void launch_blocks(cuda_executor& exec, index_t count, Body const& body) {
  static_assert(Size % 32 == 0 && Size >= 32 && Size <= 4096, "lowrank: blocks are multiples of 32 up to 4096");
  detail::launch_warps<Size>(exec, count, body);
}
/// Four neighbouring elements in a lane: every access of a warp is one stretch of memory.
template <class Body>
void launch_elements(cuda_executor& exec, index_t count, Body const& body) {
  detail::launch_warps<128>(exec, count, body);
}
template <int Size = host_tile::size, class Body>
void launch_rows(cuda_executor& exec, extents shape, Body const& body) {
  detail::launch_line_warps<Size>(exec, shape, body);
}

}  // namespace lowrank

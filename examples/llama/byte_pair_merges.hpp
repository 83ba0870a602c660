/// @file
/// Byte-pair encoding: which neighbours become one token, and in which order.
#pragma once

#include <cstdint>
#include <limits>
#include <queue>
#include <span>
#include <tuple>
#include <unordered_map>
#include <vector>

namespace llama {

/// Merges of two tokens into one, by rank: the lowest goes first, and of equal ones the leftmost.
class byte_pair_merges {
 public:
  void reserve(std::size_t count) { merges_.reserve(count); }
  /// A pair that is there already keeps its rank.
  void add(std::int32_t left, std::int32_t right, std::int32_t rank, std::int32_t merged) {
    merges_.try_emplace(key(left, right), merge{rank, merged});
  }

  /// Merges the tokens of one piece until no pair of neighbours can be merged.
  /// Cost: n log n for n tokens, whatever they are: a stranger's text may be one long piece.
  void apply(std::vector<std::int32_t>& tokens) const {
    auto const count = static_cast<std::int32_t>(tokens.size());
    if (count < 2) return;
    // Nodes of a doubly linked list; a node that was merged into its left neighbour has a negative token.
    std::vector<std::int32_t> before(tokens.size()), after(tokens.size());
    for (std::int32_t i = 0; i < count; ++i) {
      before[at(i)] = i - 1;
      after[at(i)] = i + 1;
    }
    std::priority_queue<candidate, std::vector<candidate>, std::greater<>> queue;
    auto const offer = [&](std::int32_t left, std::int32_t right) {
      if (left < 0 || right >= count) return;
      auto const found = merges_.find(key(tokens[at(left)], tokens[at(right)]));
      if (found != merges_.end())
        queue.push({found->second.rank, left, tokens[at(left)], tokens[at(right)], found->second.merged});
    };
    for (std::int32_t i = 0; i + 1 < count; ++i) offer(i, i + 1);
    while (!queue.empty()) {
      auto const best = queue.top();
      queue.pop();
      std::int32_t const left = best.place, right = tokens[at(left)] < 0 ? count : after[at(left)];
      // What was offered may have been merged otherwise since.
      if (right >= count || tokens[at(left)] != best.left || tokens[at(right)] != best.right) continue;
      tokens[at(left)] = best.merged;
      tokens[at(right)] = gone;
      after[at(left)] = after[at(right)];
      if (after[at(left)] < count) before[at(after[at(left)])] = left;
      offer(before[at(left)], left);
      offer(left, after[at(left)]);
    }
    std::erase(tokens, gone);
  }

 private:
  static constexpr std::int32_t gone = -1;

  struct merge {
    std::int32_t rank, merged;
  };
  struct candidate {
    std::int32_t rank, place, left, right, merged;
    friend bool operator>(candidate const& a, candidate const& b) noexcept {
      return std::tie(a.rank, a.place) > std::tie(b.rank, b.place);
    }
  };
  [[nodiscard]] static std::size_t at(std::int32_t index) noexcept { return static_cast<std::size_t>(index); }
  [[nodiscard]] static std::uint64_t key(std::int32_t left, std::int32_t right) noexcept {
    return std::uint64_t{static_cast<std::uint32_t>(left)} << 32 | static_cast<std::uint32_t>(right);
  }

  std::unordered_map<std::uint64_t, merge> merges_;
};

}  // namespace llama

/// @file
/// Text from the model with a cache of keys and values: a new token costs one pass over the weights, however long the
/// text before it is.
#pragma once

#include "forward.hpp"
#include "generate.hpp"
#include "linear_row.hpp"

namespace llama {

/// Keys, rotated, and values of the tokens read so far, and the memory of a pass over the next ones.
template <class T>
class kv_cache {
 public:
  /// For texts of up to `longest` tokens. A model with weights in factors needs their plan.
  /// Throws: shape_error unless `longest` is in [1, c.sequence].
  kv_cache(llama::config const& c, index_t longest, linear_plan const& plan = {})
      : longest_{checked(c, longest)},
        memory_{c, 1, std::min(longest, most_at_once), pass::inference, plan},
        keys_{c.layers * longest, c.kv_width()},
        values_{keys_.shape()} {}

  /// Tokens that were read, and how many there may be.
  [[nodiscard]] index_t length() const noexcept { return length_; }
  [[nodiscard]] index_t longest() const noexcept { return longest_; }
  [[nodiscard]] index_t bytes() const noexcept { return memory_.bytes() + keys_.bytes() + values_.bytes(); }
  [[nodiscard]] llama::config const& config() const noexcept { return memory_.config(); }
  /// Forgets all tokens but the first `length`.
  void cut(index_t length) {
    lowrank::require(length >= 0 && length <= length_, "llama::kv_cache", "holds ", length_, " tokens, cannot keep ",
                     length);
    length_ = length;
  }

  /// One row a token: `longest` x kv_width.
  [[nodiscard]] view<T> keys(index_t layer) noexcept { return of_layer(keys_, layer); }
  [[nodiscard]] view<T> values(index_t layer) noexcept { return of_layer(values_, layer); }
  [[nodiscard]] activations<T>& memory() noexcept { return memory_; }
  /// Counts tokens whose keys and values are in their rows.
  void grow(index_t tokens) noexcept { length_ += tokens; }

  /// Tokens that go through the layers together. More of them reuse each weight more often, and need more memory.
  static constexpr index_t most_at_once = 64;

 private:
  [[nodiscard]] static index_t checked(llama::config const& c, index_t longest) {
    validate(c);
    lowrank::require<lowrank::shape_error>(longest > 0 && longest <= c.sequence, "llama::kv_cache",
                                           "needs a length in [1, ", c.sequence, "], got ", longest);
    return longest;
  }
  [[nodiscard]] view<T> of_layer(lowrank::matrix<T>& all, index_t layer) noexcept {
    return all.view().row_range(layer * longest_, (layer + 1) * longest_);
  }

  index_t longest_, length_{};
  activations<T> memory_;
  lowrank::matrix<T> keys_, values_;
};

namespace detail {

/// Rotates queries and keys of the next tokens, and puts keys and values into the cache.
template <class Executor, class T>
void remember(Executor& exec, kv_cache<T>& cache, index_t l) {
  auto& memory = cache.memory();
  auto const& c = memory.config();
  auto const all = memory.at(l).query_key_value;
  auto const keys = cache.keys(l), values = cache.values(l);
  index_t const width = c.head_width(), begin = cache.length();
  exec.parallel(all.rows, [&](index_t t) {
    T* const row = &all(t, 0);
    for (index_t head = 0; head < c.heads + c.kv_heads; ++head)
      rotate(row + head * width, width, memory.cosines(begin + t), memory.sines(begin + t), c.rotary, turning::forward);
    std::copy_n(row + c.width, c.kv_width(), &keys(begin + t, 0));
    std::copy_n(row + c.width + c.kv_width(), c.kv_width(), &values(begin + t, 0));
  });
}

/// mixed = softmax(Q Kᵀ / sqrt(head width)) V for the next tokens, over all before them and themselves.
template <class Executor, class T>
void cached_attention(Executor& exec, kv_cache<T>& cache, index_t l) {
  auto& memory = cache.memory();
  auto const& c = memory.config();
  auto const layer = memory.at(l);
  auto const keys = cache.keys(l), values = cache.values(l);
  index_t const width = c.head_width(), begin = cache.length();
  T const scale = attention_scale<T>(c);
  exec.parallel(layer.mixed.rows * c.heads, [&](index_t task, int worker) {
    index_t const t = task / c.heads, head = task % c.heads, first = head / c.group() * width;
    T const* const query = &layer.query_key_value(t, head * width);
    T* const scores = reinterpret_cast<T*>(exec.worker_memory(worker));
    index_t const count = begin + t + 1;
    for (index_t j = 0; j < count; ++j) scores[j] = dot<T>(query, &keys(j, first), width);
    causal_softmax(scores, count - 1, count, scale);
    T* const __restrict mixed = &layer.mixed(t, head * width);
    std::fill_n(mixed, width, T{});
    for (index_t j = 0; j < count; ++j) {
      T const share = scores[j];
      T const* const __restrict value = &values(j, first);
      for (index_t i = 0; i < width; ++i) mixed[i] += share * value[i];
    }
  });
}

template <class Executor, class T, class Adapters>
void next_linear(Executor& exec, parameters<T> const& model, role what, index_t l, activations<T>& memory,
                 Adapters& adapters) {
  auto const x = memory.input(what, l), y = memory.output(what, l);
  auto const w = model.linear(what, l);
  if (x.rows > 1 || w.form == linear_form::frozen || adapters.scales_base())
    return forward_linear(exec, model, what, {l, l}, memory, adapters);
  apply_linear_to_row(exec, w, x.data, memory.inner(what, l).data, y.data);
  adapt(exec, what, {l, l}, memory, adapters);
}

/// The layers, for tokens whose embeddings are in the stream of the first one.
template <class Executor, class T, class Adapters>
void cached_layers(Executor& exec, parameters<T> const& model, kv_cache<T>& cache, Adapters& adapters) {
  auto& memory = cache.memory();
  auto const& c = memory.config();
  for (index_t l = 0; l < c.layers; ++l) {
    auto const layer = memory.at(l);
    if (l == 0)
      rms_norm<Executor, T>(exec, {}, layer.stream, model.weight(role::attention_norm, l), c.epsilon, layer.normed,
                            layer.scale);
    for (role const what : attention_inputs) next_linear(exec, model, what, l, memory, adapters);
    remember(exec, cache, l);
    cached_attention(exec, cache, l);
    next_linear(exec, model, role::attention_output, l, memory, adapters);
    rms_norm<Executor, T>(exec, layer.stream, layer.middle, model.weight(role::mlp_norm, l), c.epsilon,
                          layer.middle_normed, layer.middle_scale);
    for (role const what : feed_forward_inputs) next_linear(exec, model, what, l, memory, adapters);
    swiglu<Executor, T>(exec, layer.gate_up, layer.active);
    next_linear(exec, model, role::down, l, memory, adapters);
    norm_after(exec, model, l, memory);
  }
}

}  // namespace detail

/// Reads `tokens` behind those that the cache holds. Gives the logits of what follows the last one, to rounding those of
/// `forward` over the whole text; they are overwritten by the next call.
/// Cost: 2 (linear weights) flops a token and 4 length width layers for attention; nothing is allocated.
/// Throws: argument_error, shape_error when the cache is too short, state_error.
template <class Executor, class T, class Adapters = no_adapters>
std::span<T const> advance(Executor& exec, parameters<T> const& model, kv_cache<T>& cache,
                           std::span<std::int32_t const> tokens, Adapters&& adapters = {}) {
  auto& memory = cache.memory();
  auto const& c = model.config();
  auto const count = static_cast<index_t>(tokens.size());
  lowrank::require(c == memory.config(), "llama::advance", "needs a cache made for the same configuration");
  lowrank::require(count > 0, "llama::advance", "needs at least one token");
  lowrank::require<lowrank::shape_error>(count <= cache.longest() - cache.length(), "llama::advance",
                                         "the cache holds ", cache.length(), " of up to ", cache.longest(),
                                         " tokens, no room for ", count);
  detail::check_tokens(c, {tokens, 1, count});
  lowrank::require<lowrank::state_error>(exec.worker_bytes() >= cache.longest() * index_t{sizeof(T)}, "llama::advance",
                                         "needs host_options::worker_bytes of at least ",
                                         cache.longest() * index_t{sizeof(T)}, ", got ", exec.worker_bytes());
  for (index_t done = 0; done < count;) {
    index_t const part = std::min(count - done, memory.longest());
    memory.shape_to(1, part);
    token_view const next{tokens.subspan(static_cast<std::size_t>(done), static_cast<std::size_t>(part)), 1, part};
    detail::embed<Executor, T>(exec, model, next, memory.at(0).stream);
    detail::cached_layers(exec, model, cache, adapters);
    cache.grow(part);
    done += part;
  }
  index_t const last = memory.tokens() - 1;
  T* const logits = memory.logits().data;
  auto const head = model.weight(role::head);
  if (head.empty())
    detail::head<Executor, T>(exec, model, memory.final_normed().row_range(last, last + 1),
                              lowrank::row_major(logits, {1, c.vocabulary}));
  else
    detail::each_row_product<Executor, T>(exec, head, &memory.final_normed()(last, 0),
                                          [=](index_t token, T value) { logits[token] = value; });
  return {logits, static_cast<std::size_t>(c.vocabulary)};
}

struct decoding {
  sampling draw{};
  std::int32_t stop{-1};  ///< ends the text before its count; -1: nothing does
};

/// Adds up to options.draw.count tokens to `text`, which begins with what the cache holds already; a stop token is added
/// too. The same seed gives the same text.
/// Throws: argument_error, before anything is added; shape_error when the cache is too short.
template <class Executor, class T, class Adapters = no_adapters>
void generate(Executor& exec, parameters<T> const& model, kv_cache<T>& cache, std::vector<std::int32_t>& text,
              decoding const& options, Adapters&& adapters = {}) {
  auto const length = static_cast<index_t>(text.size());
  check(options.draw);
  lowrank::require(length > cache.length(), "llama::generate", "needs a token behind the ", cache.length(),
                   " that the cache holds, got ", length);
  lowrank::require<lowrank::shape_error>(length + options.draw.count <= cache.longest(), "llama::generate",
                                         "the cache takes ", cache.longest(), " tokens, asked for ", length, " and ",
                                         options.draw.count, " more");
  auto const vocabulary = static_cast<std::size_t>(model.config().vocabulary);
  std::vector<std::int32_t> order(vocabulary);
  text.reserve(text.size() + static_cast<std::size_t>(options.draw.count));
  lowrank::rng_key const key{.seed = options.draw.seed, .tensor = 0xFFFFFF, .purpose = lowrank::rng_purpose::data};
  for (index_t n = 0; n < options.draw.count; ++n) {
    auto const logits =
        advance(exec, model, cache,
                std::span<std::int32_t const>{text}.subspan(static_cast<std::size_t>(cache.length())), adapters);
    text.push_back(sample_token<T>(logits, options.draw, lowrank::uniform(key, static_cast<std::uint64_t>(n)), order));
    if (text.back() == options.stop) break;
  }
}

}  // namespace llama

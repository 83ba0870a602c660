#include "support/named_optimizers.hpp"

#include "lowrank/linalg/host/eigen_products.hpp"
#include "lowrank/linalg/host/small_factorizations.hpp"
#include "support/decompositions.hpp"

namespace lowrank {

template named_optimizer<host_executor> by_name(std::string_view, option_list, by_name_context<host_executor> const&);

}  // namespace lowrank

namespace lowrank_test {

using namespace lowrank;

named_optimizer<host_executor> named(std::string_view name, std::string_view options, named_context context) {
  if (!context.exact_svd)
    context.exact_svd = [](host_executor& exec, matrix_view<float const> a, svd_output<> const& out) {
      return exact_svd(exec, a, out);
    };
  return by_name<host_executor>(name, option_list{options}, context);
}

std::unique_ptr<any_optimizer> make_named(host_executor& exec, std::string_view name, std::string_view options,
                                          extents weight, std::uint32_t tensor, named_context context) {
  return named(name, options, std::move(context)).make(exec, weight, tensor);
}

}  // namespace lowrank_test

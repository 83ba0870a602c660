// Optimizers by name for host_executor, instantiated once for all tests (named_optimizers.cpp): every rule, finder, basis
// format, weight format and form of gradient without compiling any of them again.
#pragma once

#include <string>
#include <string_view>

#include "lowrank/optim/by_name.hpp"

namespace lowrank {

extern template named_optimizer<host_executor> by_name(std::string_view, option_list,
                                                       by_name_context<host_executor> const&);

}  // namespace lowrank

namespace lowrank_test {

using any_optimizer = lowrank::matrix_optimizer<lowrank::host_executor>;
using named_context = lowrank::by_name_context<lowrank::host_executor>;

/// by_name, with the exact SVD at hand for finder=svd.
[[nodiscard]] lowrank::named_optimizer<lowrank::host_executor> named(std::string_view name, std::string_view options,
                                                                     named_context context = {});

/// The state and settings of one weight.
[[nodiscard]] std::unique_ptr<any_optimizer> make_named(lowrank::host_executor& exec, std::string_view name,
                                                        std::string_view options, lowrank::extents weight,
                                                        std::uint32_t tensor = 1, named_context context = {});

}  // namespace lowrank_test

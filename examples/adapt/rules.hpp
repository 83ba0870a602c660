/// @file
/// The library's rules by their names, compiled once, in a file of their own: that takes a minute.
#pragma once

#include "lowrank/optim/by_name.hpp"
#include "smollm2/executor.hpp"

namespace lowrank {

extern template named_optimizer<smollm2::executor_type> by_name(std::string_view, option_list,
                                                                by_name_context<smollm2::executor_type> const&);

}  // namespace lowrank

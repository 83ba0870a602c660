#include "rules.hpp"

namespace lowrank {

template named_optimizer<smollm2::executor_type> by_name(std::string_view, option_list,
                                                         by_name_context<smollm2::executor_type> const&);

}  // namespace lowrank

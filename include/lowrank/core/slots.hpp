/// @file
/// Which slot of a composition a policy fills: `using fills = slots::refresh;` in the policy.
#pragma once

namespace lowrank::slots {

struct refresh {};
struct transport {};
struct residual {};
struct lift {};
struct basis_format {};

}  // namespace lowrank::slots

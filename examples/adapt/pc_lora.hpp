/// @file
/// PC-LoRA as a program of its own.
#pragma once

#include "settings.hpp"

namespace adapting {

/// Replaces matrices of a model by narrow pairs while they fade, and the same ranks cut at once, trained alike.
void run_pc_lora(settings const& s);

}  // namespace adapting

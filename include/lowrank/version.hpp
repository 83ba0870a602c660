/// @file
/// The one truth of the version: CMakeLists.txt and the package files read it from here.
#pragma once

#define LOWRANK_VERSION_MAJOR 0
#define LOWRANK_VERSION_MINOR 1
#define LOWRANK_VERSION_PATCH 0

namespace lowrank {

/// The version of the headers a translation unit was compiled with.
struct version {
  int major{LOWRANK_VERSION_MAJOR};
  int minor{LOWRANK_VERSION_MINOR};
  int patch{LOWRANK_VERSION_PATCH};
};

}  // namespace lowrank

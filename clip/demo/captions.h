// The wordings of the built-in data set.
#pragma once

#include <cstdint>
#include <string>

#include "clip/demo/cldr_annotations.h"

namespace strobe::clip {

/// A caption for training: the name in one of several wordings (even `number`), or keywords with the name or without
/// it (odd). The same for equal arguments.
std::string training_caption(const CldrAnnotation& emoji, uint64_t number);

/// A caption in a wording that training_caption never uses.
std::string test_caption(const CldrAnnotation& emoji, uint64_t number);

}  // namespace strobe::clip

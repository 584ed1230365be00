// The values of the pairs' database: pickled tuples (image_id, text_id, text).
#pragma once

#include <string>
#include <string_view>

#include "clip/data/dataset.h"

namespace strobe::clip {

/// Byte for byte what Python 3.8 to 3.13 write for pickle.dumps((image_id, text_id, text)), protocol 4, the values
/// coming from json.loads. Throws DataError for an id that is neither int, float, bool, None nor str.
std::string write_pair(const Pair& pair);

/// Protocols 2 to 5. Nothing is executed; throws DataError for anything but such a tuple.
Pair read_pair(std::string_view pickle);

}  // namespace strobe::clip

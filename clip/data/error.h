#pragma once

#include "strobe/types.h"

namespace strobe::clip {

/// What reading and building data throws. The text names the file or database and the key or line.
class DataError : public Error {
 public:
  using Error::Error;
};

}  // namespace strobe::clip

// The text of an error.
#pragma once

#include <string>

namespace strobe {

/// What `action` throws as an Error, or "" if it throws nothing.
template <typename Error, typename Action>
std::string message_of(Action action) {
  try {
    action();
  } catch (const Error& error) {
    return error.what();
  }
  return "";
}

}  // namespace strobe

// A file's identity, for records of what a run was made from. The file is held in memory meanwhile.
#pragma once

#include <filesystem>
#include <string>

namespace strobe::train {

/// The SHA-1 of a file's bytes as `sha1sum` prints it, 40 hexadecimal digits. Throws strobe::Error where it cannot be
/// read.
std::string file_hash(const std::filesystem::path& file);

}  // namespace strobe::train

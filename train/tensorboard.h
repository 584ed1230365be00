// Event files that TensorBoard plots.
#pragma once

#include <cstdint>
#include <filesystem>
#include <fstream>
#include <string>
#include <string_view>

namespace strobe::train {

/// CRC-32C (Castagnoli) as RFC 3720, appendix B.4 defines it.
uint32_t crc32c(std::string_view data);

/// One file events.out.tfevents.<seconds>.<host>.<pid>.<count> of TFRecords, each an Event of
/// tensorflow/core/util/event.proto.
class EventFile {
 public:
  /// Creates the folder where it does not exist. Throws strobe::Error naming the file that cannot be written.
  explicit EventFile(const std::filesystem::path& folder);

  /// Makes TensorBoard forget the points from `step` on of the folder's earlier files: a run that goes on from before
  /// them draws them again.
  void restart(int64_t step);

  /// A point of the curve `tag`; several runs in one folder become one curve.
  void scalar(std::string_view tag, int64_t step, double value);

 private:
  void write(const std::string& event);
  std::ofstream file_;
};

}  // namespace strobe::train

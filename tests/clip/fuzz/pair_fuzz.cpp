// Any bytes are a pair or a DataError; a pair that is read is written and read again as the same.
#include <cstdlib>
#include <string_view>

#include "clip/data/base64.h"
#include "clip/data/pair_record.h"
#include "target.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, std::size_t size) {
  using namespace strobe::clip;
  const std::string_view bytes(reinterpret_cast<const char*>(data), size);
  decode_base64(bytes);
  try {
    const Pair pair = read_pair(bytes);
    const std::string written = write_pair(pair);
    const Pair again = read_pair(written);
    if (write_pair(again) != written || again.text != pair.text || id_text(again.image_id) != id_text(pair.image_id)) {
      std::abort();
    }
  } catch (const DataError&) {
  }
  return 0;
}

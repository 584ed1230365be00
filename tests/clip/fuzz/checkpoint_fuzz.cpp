// Any bytes are a pickle, a .pt and a safetensors file, or a CheckpointError; every tensor lies within them.
#include <sys/mman.h>
#include <unistd.h>

#include <string>
#include <string_view>

#include "clip/checkpoint/hugging_face.h"
#include "clip/checkpoint/safetensors.h"
#include "clip/checkpoint/state.h"
#include "clip/checkpoint/towers.h"
#include "target.h"
#include "train/checkpoint.h"
#include "train/pickle.h"

namespace {

using namespace strobe;
using train::CheckpointError;
using train::Dict;

constexpr int64_t kTouched = 1 << 16;  // elements: a tensor of stride 0 may have any number

template <typename Read>
void attempt(const Read& read) {
  try {
    read();
  } catch (const CheckpointError&) {
  }
}

void touch(const train::Value& value) {
  if (const auto* tensor = std::get_if<at::Tensor>(&value.data)) {
    if (tensor->numel() <= kTouched) tensor->clone();
  } else if (const auto* dict = std::get_if<Dict>(&value.data)) {
    for (const auto& [key, item] : *dict) touch(item);
  } else if (std::holds_alternative<train::List>(value.data) || std::holds_alternative<train::Tuple>(value.data)) {
    for (const train::Value& item : value.as_list()) touch(item);
  }
}

/// As read_clip_weights does with the names.
void use(const Dict& tensors) {
  attempt([&] { clip::to_hugging_face(clip::normalise_state(tensors)); });
  attempt([&] { clip::from_hugging_face(tensors); });
  attempt([&] { clip::infer_towers(tensors); });
}

/// A file of the bytes, in memory.
class File {
 public:
  explicit File(std::string_view bytes) : fd_(memfd_create("fuzz", 0)) {
    if (write(fd_, bytes.data(), bytes.size()) != static_cast<ssize_t>(bytes.size())) abort();
  }
  ~File() { close(fd_); }
  File(const File&) = delete;
  File& operator=(const File&) = delete;
  std::string path() const { return "/proc/self/fd/" + std::to_string(fd_); }

 private:
  int fd_;
};

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, std::size_t size) {
  const std::string_view bytes(reinterpret_cast<const char*>(data), size);
  const auto refuse = [](const std::string&, std::size_t) -> c10::Storage {
    throw CheckpointError("no storages here");
  };
  attempt([&] { touch(train::read_pickle(bytes, refuse, train::Objects::kOpaque)); });
  const File file(bytes);
  attempt([&] {
    const Dict content = train::load_checkpoint(file.path(), train::Objects::kOpaque);
    touch(content);
    use(clip::flatten_modules(content));
  });
  attempt([&] {
    const Dict tensors = clip::read_safetensors(file.path());
    touch(tensors);
    use(tensors);
  });
  return 0;
}

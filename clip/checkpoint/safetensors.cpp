#include "clip/checkpoint/safetensors.h"

#include <ATen/ops/empty.h>
#include <fmt/format.h>

#include <algorithm>
#include <cstring>
#include <limits>
#include <nlohmann/json.hpp>
#include <vector>

#include "train/atomic_file.h"
#include "train/mapped_file.h"

namespace strobe::clip {
namespace {

using Json = nlohmann::ordered_json;
using train::CheckpointError;
using train::Dict;

constexpr uint64_t kMaxHeader = 100'000'000;  // the format's own limit
constexpr std::size_t kLengthSize = sizeof(uint64_t), kHeaderAlignment = 8;
constexpr const char* kMetadata = "__metadata__";

struct Dtype {
  const char* name;
  at::ScalarType type;
};
constexpr Dtype kDtypes[] = {
    {"F64", at::kDouble}, {"F32", at::kFloat}, {"F16", at::kHalf}, {"BF16", at::kBFloat16}, {"I64", at::kLong},
    {"I32", at::kInt},    {"I16", at::kShort}, {"I8", at::kChar},  {"U8", at::kByte},       {"BOOL", at::kBool},
};

/// A tensor as the header describes it.
struct Entry {
  std::string name;
  at::ScalarType type;
  std::vector<int64_t> sizes;
  uint64_t begin, end;  // bytes of the data
};

[[noreturn]] void fail(const std::string& name, const std::string& what) {
  throw CheckpointError("tensor \"" + name + "\": " + what);
}

uint64_t unsigned_number(const std::string& name, const Json& number) {
  if (!number.is_number_unsigned()) fail(name, "expected whole numbers of shape and offsets, found " + number.dump());
  return number.get<uint64_t>();
}

at::ScalarType parse_dtype(const std::string& name, const Json& fields) {
  const Json& dtype = fields.value("dtype", Json());
  for (const Dtype& known : kDtypes) {
    if (dtype == known.name) return known.type;
  }
  fail(name, "its dtype " + dtype.dump() + " is not supported");
}

/// Refuses sizes whose product does not fit.
uint64_t byte_count(const Entry& entry) {
  auto bytes = static_cast<unsigned __int128>(c10::elementSize(entry.type));
  for (const int64_t size : entry.sizes) {
    bytes *= static_cast<unsigned __int128>(size);
    if (bytes > std::numeric_limits<int64_t>::max()) fail(entry.name, "its shape is out of range");
  }
  return static_cast<uint64_t>(bytes);
}

Entry parse_entry(const std::string& name, const Json& fields) {
  if (!fields.is_object()) fail(name, "expected an object");
  Entry entry{name, parse_dtype(name, fields), {}, 0, 0};
  const Json shape = fields.value("shape", Json()), offsets = fields.value("data_offsets", Json());
  if (!shape.is_array() || !offsets.is_array() || offsets.size() != 2) fail(name, "expected a shape and two offsets");
  for (const Json& number : shape) {
    const uint64_t size = unsigned_number(name, number);
    if (size > static_cast<uint64_t>(std::numeric_limits<int64_t>::max())) fail(name, "its shape is out of range");
    entry.sizes.push_back(static_cast<int64_t>(size));
  }
  entry.begin = unsigned_number(name, offsets[0]);
  entry.end = unsigned_number(name, offsets[1]);
  if (entry.begin > entry.end || entry.end - entry.begin != byte_count(entry)) {
    fail(name, fmt::format("its shape and dtype take {} bytes, its offsets are {} and {}", byte_count(entry),
                           entry.begin, entry.end));
  }
  return entry;
}

/// The tensors lie one after the other and fill the data.
void check_layout(const std::vector<Entry>& entries, uint64_t data_size) {
  uint64_t position = 0;
  for (const Entry& entry : entries) {
    if (entry.begin != position)
      fail(entry.name, entry.begin < position ? "it overlaps another" : "a hole lies before it");
    if (entry.end > data_size) fail(entry.name, "it reaches beyond the file's end (truncated?)");
    position = entry.end;
  }
  if (position != data_size) {
    throw CheckpointError(fmt::format("expected {} bytes of tensors, found {}", position, data_size));
  }
}

/// Returns the header's text; `file` loses what is before the data.
std::string_view take_header(std::string_view& file) {
  uint64_t length = 0;
  if (file.size() >= kLengthSize) std::memcpy(&length, file.data(), kLengthSize);
  if (file.size() < kLengthSize || length > kMaxHeader || length > file.size() - kLengthSize ||
      file[kLengthSize] != '{') {
    throw CheckpointError("cannot be read (truncated, or not safetensors): found no header");
  }
  const std::string_view header = file.substr(kLengthSize, length);
  file.remove_prefix(kLengthSize + header.size());
  return header;
}

Json parse_header(std::string_view text) {
  Json header = Json::parse(text, nullptr, /*allow_exceptions=*/false);
  if (!header.is_object()) throw CheckpointError("cannot be read: its header is no JSON object");
  header.erase(kMetadata);
  return header;
}

Dict parse(const train::MappedFile& mapped) {
  std::string_view data = mapped.bytes();
  std::vector<Entry> entries;
  const Json header = parse_header(take_header(data));
  for (const auto& [name, fields] : header.items()) entries.push_back(parse_entry(name, fields));
  std::stable_sort(entries.begin(), entries.end(), [](const Entry& a, const Entry& b) {
    return std::pair(a.begin, a.end) < std::pair(b.begin, b.end);
  });
  check_layout(entries, data.size());
  Dict tensors;
  for (const Entry& entry : entries) {
    at::Tensor tensor = at::empty({0}, at::dtype(entry.type));
    const c10::Storage storage = mapped.storage(data.substr(entry.begin, entry.end - entry.begin));
    std::vector<int64_t> strides(entry.sizes.size(), 1);
    for (std::size_t i = strides.size(); i-- > 1;) strides[i - 1] = strides[i] * std::max<int64_t>(entry.sizes[i], 1);
    tensor.set_(storage, 0, entry.sizes, strides);
    tensors[entry.name] = std::move(tensor);
  }
  return tensors;
}

const char* dtype_name(const std::string& name, at::ScalarType type) {
  for (const Dtype& known : kDtypes) {
    if (known.type == type) return known.name;
  }
  fail(name, std::string("dtype ") + c10::toString(type) + " cannot be written");
}

using NamedTensors = std::vector<std::pair<std::string, at::Tensor>>;

NamedTensors in_written_order(const Dict& tensors) {
  NamedTensors sorted;
  for (const auto& [key, value] : tensors) sorted.emplace_back(std::get<std::string>(key), value.as_tensor());
  std::sort(sorted.begin(), sorted.end(), [](const auto& a, const auto& b) {
    const auto rank = [](const at::Tensor& tensor) { return -static_cast<int64_t>(tensor.element_size()); };
    return std::pair(rank(a.second), a.first) < std::pair(rank(b.second), b.first);
  });
  return sorted;
}

/// With its length before it, padded so that the data is aligned.
std::string header_of(const NamedTensors& tensors, const std::map<std::string, std::string>& metadata) {
  Json header = Json::object();
  if (!metadata.empty()) header[kMetadata] = metadata;
  int64_t offset = 0;
  for (const auto& [name, tensor] : tensors) {
    const int64_t end = offset + static_cast<int64_t>(tensor.nbytes());
    header[name] = {{"dtype", dtype_name(name, tensor.scalar_type())},
                    {"shape", tensor.sizes().vec()},
                    {"data_offsets", {offset, end}}};
    offset = end;
  }
  std::string text = header.dump();
  text.resize((text.size() + kHeaderAlignment - 1) / kHeaderAlignment * kHeaderAlignment, ' ');
  std::string length(kLengthSize, '\0');
  const uint64_t size = text.size();
  std::memcpy(length.data(), &size, kLengthSize);
  return length + text;
}

}  // namespace

Dict read_safetensors(const std::filesystem::path& file) {
  try {
    return parse(*train::MappedFile::open(file));
  } catch (const CheckpointError& error) {
    throw CheckpointError("safetensors " + file.string() + ": " + error.what());
  }
}

void write_safetensors(const std::filesystem::path& file, const Dict& tensors,
                       const std::map<std::string, std::string>& metadata) {
  const NamedTensors sorted = in_written_order(tensors);
  train::write_atomically(file, [&](train::AtomicFile& output) {
    output.write(header_of(sorted, metadata));
    for (const auto& [name, tensor] : sorted) {
      const at::Tensor bytes = tensor.cpu().contiguous();
      output.write(static_cast<const char*>(bytes.const_data_ptr()), bytes.nbytes());
    }
  });
}

}  // namespace strobe::clip

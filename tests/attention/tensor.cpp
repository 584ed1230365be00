#include "tests/attention/tensor.h"

#include <algorithm>

#include "src/attention/element.h"

namespace strobe::testing {
namespace {

constexpr int64_t kMargin = 4096;  // bytes on both sides
constexpr int64_t kAlignment = 64;
constexpr int64_t kOffBy = 16;  // the interface asks for 16-byte alignment: give no more
constexpr std::byte kPoison{0xFF};

constexpr std::size_t kWorkspaceAlignment = 256, kWorkspaceGuard = 1024;

}  // namespace

Storage::Storage(int64_t bytes) : bytes_(bytes + 2 * kMargin + kAlignment, kPoison), owned_(bytes, false) {
  const auto begin = reinterpret_cast<std::uintptr_t>(bytes_.data()) + kMargin;
  data_ = bytes_.data() + kMargin + (kAlignment - begin % kAlignment) % kAlignment + kOffBy;
}

void Storage::own(int64_t begin, int64_t end) { std::fill(owned_.begin() + begin, owned_.begin() + end, true); }

bool Storage::untouched() const {
  const int64_t margin = data_ - bytes_.data();
  const int64_t size = static_cast<int64_t>(owned_.size());
  for (int64_t i = 0; i < static_cast<int64_t>(bytes_.size()); ++i) {
    const bool inside = i >= margin && i < margin + size;
    if (bytes_[i] != kPoison && !(inside && owned_[i - margin])) return false;
  }
  return true;
}

void* Tensor::data() const { return storage->data() + begin * element_size(dtype); }

double Tensor::get(int64_t b, int64_t i, int64_t h, int64_t d) const {
  return load_element(data(), dtype, index(b, i, h) + d);
}

void Tensor::set(int64_t b, int64_t i, int64_t h, int64_t d, double value) const {
  store_element(data(), dtype, index(b, i, h) + d, static_cast<float>(value));
}

void Tensor::set_row(int64_t b, int64_t i, double value) const {
  for (int64_t h = 0; h < heads; ++h) {
    for (int64_t d = 0; d < head_dim; ++d) set(b, i, h, d, value);
  }
}

void Tensor::own() const {
  for (int64_t b = 0; b < batch; ++b) {
    for (int64_t i = 0; i < rows; ++i) {
      for (int64_t h = 0; h < heads; ++h) {
        const int64_t first = (begin + index(b, i, h)) * element_size(dtype);
        storage->own(first, first + head_dim * element_size(dtype));
      }
    }
  }
}

std::vector<double> Tensor::compact() const {
  std::vector<double> result;
  result.reserve(batch * rows * heads * head_dim);
  for (int64_t b = 0; b < batch; ++b) {
    for (int64_t i = 0; i < rows; ++i) {
      for (int64_t h = 0; h < heads; ++h) {
        for (int64_t d = 0; d < head_dim; ++d) result.push_back(get(b, i, h, d));
      }
    }
  }
  return result;
}

Workspace::Workspace(std::size_t size) : bytes_(size + kWorkspaceGuard + kWorkspaceAlignment, kPoison), size_(size) {
  const auto address = reinterpret_cast<std::uintptr_t>(bytes_.data());
  begin_ = bytes_.data() + (kWorkspaceAlignment - address % kWorkspaceAlignment) % kWorkspaceAlignment;
}

bool Workspace::untouched_behind() const {
  const std::byte* end = begin_ + size_;
  return std::all_of(end, end + kWorkspaceGuard, [](std::byte b) { return b == kPoison; });
}

}  // namespace strobe::testing

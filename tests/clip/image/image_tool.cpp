// For parity_test.py: a list of requests as JSON on stdin, a list of answers on stdout. Pixels go to the file "out".
#include <nlohmann/json.hpp>

#include <ATen/ops/from_blob.h>

#include <fstream>
#include <iostream>
#include <iterator>
#include <string>

#include "clip/image/image.h"
#include "clip/image/transform.h"

namespace {

using nlohmann::json;
using namespace strobe::clip;

std::string read_file(const std::string& path) {
  std::ifstream in(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(in), {}};
}

void write_file(const json& request, const void* data, std::size_t bytes) {
  std::ofstream out(request["out"].get<std::string>(), std::ios::binary);
  out.write(static_cast<const char*>(data), static_cast<std::streamsize>(bytes));
}

const char* name_of(ImageMode mode) {
  switch (mode) {
    case ImageMode::kBilevel:
      return "1";
    case ImageMode::kGray:
      return "L";
    case ImageMode::kGrayAlpha:
      return "LA";
    case ImageMode::kPalette:
      return "P";
    case ImageMode::kRgb:
      return "RGB";
    case ImageMode::kRgba:
      return "RGBA";
    case ImageMode::kCmyk:
      return "CMYK";
    case ImageMode::kGray16:
      return "I;16";
  }
  return "?";
}

AugmentDraws draws_of(const json& request) {
  AugmentDraws draws;
  const auto& crop = request["crop"];
  draws.crop = {crop[0], crop[1], crop[2], crop[3]};
  draws.flip = request["flip"];
  draws.policy = request["policy"];
  for (std::size_t i = 0; i < 2; ++i) draws.ops[i] = {request["ops"][i][0], request["ops"][i][1]};
  return draws;
}

json draw(const json& request) {
  const AugmentDraws draws =
      draw_augmentation(request["seed"], request["epoch"], request["index"], request["width"], request["height"]);
  json ops = json::array();
  for (const OpDraw& op : draws.ops) ops.push_back({op.apply, op.negate});
  return {{"crop", {draws.crop.left, draws.crop.top, draws.crop.width, draws.crop.height}},
          {"flip", draws.flip},
          {"policy", draws.policy},
          {"ops", ops}};
}

json normalize(const json& request) {
  std::string pixels = read_file(request["file"]);
  const int64_t side = request["resolution"];
  const auto count = static_cast<int64_t>(pixels.size()) / (side * side * 3);
  const at::Tensor images = at::from_blob(pixels.data(), {count, side, side, 3}, at::kByte);
  const auto format = request["channels_last"] ? at::MemoryFormat::ChannelsLast : at::MemoryFormat::Contiguous;
  const at::Tensor out = normalize_images(images, format);
  if (!out.is_contiguous(format)) return {{"error", "the memory format is not the one asked for"}};
  const at::Tensor plain = out.contiguous();
  write_file(request, plain.const_data_ptr<float>(), static_cast<std::size_t>(plain.nbytes()));
  return json::object();
}

json answer(const json& request) {
  const std::string op = request["op"];
  if (op == "draw") return draw(request);
  if (op == "normalize") return normalize(request);
  const Image image = decode_image(read_file(request["file"]));
  json result = {{"mode", name_of(image.mode)}, {"width", image.width}, {"height", image.height}};
  if (op == "decode") {
    write_file(request, image.pixels.data(), image.pixels.size());
    return result;
  }
  const int side = request["resolution"];
  std::vector<uint8_t> out(static_cast<std::size_t>(side) * static_cast<std::size_t>(side) * 3);
  if (op == "augment") {
    augment_image(image, draws_of(request), side, out.data());
  } else {
    transform_image(image, side, out.data());
  }
  write_file(request, out.data(), out.size());
  return result;
}

}  // namespace

int main() {
  json answers = json::array();
  for (const json& request : json::parse(std::cin)) {
    try {
      answers.push_back(answer(request));
    } catch (const strobe::Error& error) {
      answers.push_back({{"error", error.what()}});
    }
  }
  std::cout << answers.dump();
}

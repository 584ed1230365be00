// Answers the Python tests of the checkpoints:
//   read FILE OUT          what read_clip_checkpoint finds, as one checkpoint of plain values
//   weights FILE OUT       what read_clip_weights finds
//   rewrite FILE OUT       read_clip_checkpoint, then write_clip_checkpoint
//   load FILE MODEL OUT    a module with the tensors of the dict in MODEL, after load_clip_weights of FILE
//   match FILE OWN OUT     match_optimizer of FILE's optimizer for the state_dict in OWN
//   towers FILE            which model FILE is of
//   safetensors FILE OUT   read and written again
#include <cstdio>
#include <exception>
#include <string>
#include <vector>

#include "clip/checkpoint/checkpoint.h"
#include "clip/checkpoint/load.h"
#include "clip/checkpoint/optimizer_state.h"
#include "clip/checkpoint/safetensors.h"
#include "clip/checkpoint/towers.h"
#include "tests/clip/checkpoint/nested_module.h"
#include "train/checkpoint.h"

namespace strobe::clip {
namespace {

using train::Dict;

void dump(const ClipCheckpoint& content, const std::string& out) {
  Dict plain;
  plain["epoch"] = content.epoch;
  plain["step"] = content.step;
  plain["name"] = content.name;
  plain["state"] = content.state;
  plain["optimizer"] = content.optimizer ? train::Value(*content.optimizer) : train::Value();
  train::List extra;
  for (const auto& [key, value] : content.extra) {
    extra.emplace_back(std::get<std::string>(key) + ": " + value.type_name());
  }
  plain["extra"] = std::move(extra);
  train::save_checkpoint(out, plain);
}

void load(const std::string& file, const std::string& shapes, const std::string& out) {
  const auto module = nested_module(train::load_checkpoint(shapes));
  load_clip_weights(*module, read_clip_weights(file).state);
  train::save_checkpoint(out, train::module_state(*module));
}

bool answer(const std::vector<std::string>& a) {
  const std::string& what = a[0];
  if (what == "read" && a.size() == 3) return dump(read_clip_checkpoint(a[1]), a[2]), true;
  if (what == "weights" && a.size() == 3) return dump(read_clip_weights(a[1]), a[2]), true;
  if (what == "rewrite" && a.size() == 3) return write_clip_checkpoint(a[2], read_clip_checkpoint(a[1])), true;
  if (what == "load" && a.size() == 4) return load(a[1], a[2], a[3]), true;
  if (what == "match" && a.size() == 4) {
    const Dict own = train::load_checkpoint(a[2]);
    return train::save_checkpoint(a[3], match_optimizer(*read_clip_checkpoint(a[1]).optimizer, own)), true;
  }
  if (what == "towers" && a.size() == 2) {
    return std::puts(describe(infer_towers(read_clip_weights(a[1]).state)).c_str()), true;
  }
  if (what == "safetensors" && a.size() == 3) return write_safetensors(a[2], read_safetensors(a[1])), true;
  return false;
}

}  // namespace
}  // namespace strobe::clip

int main(int argc, char** argv) {
  try {
    if (argc > 1 && strobe::clip::answer({argv + 1, argv + argc})) return 0;
  } catch (const std::exception& error) {
    std::fprintf(stderr, "%s\n", error.what());
    return 1;
  }
  std::fprintf(stderr, "usage: see checkpoint_tool.cpp\n");
  return 2;
}

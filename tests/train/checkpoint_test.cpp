#include "train/checkpoint.h"

#include <ATen/ops/arange.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/ones.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/resource.h>
#include <torch/nn/module.h>

#include <csignal>
#include <fstream>

#include "tests/message_of.h"
#include "tests/temporary_folder.h"
#include "tests/train/tiny_task.h"
#include "train/pickle.h"

namespace strobe::train {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;

Dict sample() {
  const at::Tensor base = at::arange(12, at::kFloat).reshape({3, 4});
  Dict nested, dict;
  nested["shared"] = base.t();
  nested[int64_t{-3}] = 1.5;
  dict["tensor"] = base;
  dict["view"] = base.narrow(0, 1, 2);
  dict["nested"] = std::move(nested);
  dict["list"] = List{Value(), true, false, 0, 255, 256, 65536, -1, int64_t{1} << 40, -(int64_t{1} << 62)};
  dict["tuple"] = Tuple{{0.1, "naïve 译", Bytes{std::string("\x00\x80\xff", 3)}}};
  dict["empty"] = List{List{}, Tuple{}, Dict{}, "", Bytes{}, at::empty({0, 3}), at::ones({})};
  return dict;
}

void write_bytes(const std::filesystem::path& file, std::string_view bytes) {
  std::ofstream(file, std::ios::binary).write(bytes.data(), static_cast<std::streamsize>(bytes.size()));
}

TEST(Checkpoint, ComesBackAsItWas) {
  const TemporaryFolder folder;
  save_checkpoint(folder / "c.pt", sample());
  const Dict read = load_checkpoint(folder / "c.pt");
  const at::Tensor base = at::arange(12, at::kFloat).reshape({3, 4});
  EXPECT_TRUE(at::equal(read.at("tensor").as_tensor(), base));
  EXPECT_TRUE(at::equal(read.at("view").as_tensor(), base.narrow(0, 1, 2)));
  const Dict& nested = read.at("nested").as_dict();
  EXPECT_EQ(nested.at("shared").as_tensor().strides(), base.t().strides());
  EXPECT_EQ(nested.at(int64_t{-3}).as_double(), 1.5);
  const List& list = read.at("list").as_list();
  EXPECT_TRUE(list[0].is_none());
  EXPECT_TRUE(list[1].as_bool());
  EXPECT_FALSE(list[2].as_bool());
  const std::vector<int64_t> ints = {0, 255, 256, 65536, -1, int64_t{1} << 40, -(int64_t{1} << 62)};
  for (std::size_t i = 0; i < ints.size(); ++i) EXPECT_EQ(list[i + 3].as_int(), ints[i]);
  const List& tuple = read.at("tuple").as_list();
  EXPECT_EQ(tuple[0].as_double(), 0.1);
  EXPECT_EQ(tuple[1].as_string(), "naïve 译");
  EXPECT_EQ(tuple[2].as_bytes(), std::string("\x00\x80\xff", 3));
  const List& empty = read.at("empty").as_list();
  EXPECT_STREQ(empty[1].type_name(), "tuple");
  EXPECT_EQ(empty[5].as_tensor().sizes(), at::IntArrayRef({0, 3}));
  EXPECT_EQ(empty[6].as_tensor().dim(), 0);
}

TEST(Checkpoint, TensorsGoOnSharingTheirStorage) {
  const TemporaryFolder folder;
  save_checkpoint(folder / "c.pt", sample());
  const Dict read = load_checkpoint(folder / "c.pt");
  read.at("tensor").as_tensor().fill_(7.0);
  EXPECT_EQ(read.at("view").as_tensor().sum().item<double>(), 8 * 7.0);
  EXPECT_EQ(read.at("nested").as_dict().at("shared").as_tensor().sum().item<double>(), 12 * 7.0);
}

TEST(Checkpoint, EveryDtype) {
  const TemporaryFolder folder;
  Dict dict;
  const at::ScalarType dtypes[] = {at::kFloat, at::kDouble, at::kHalf, at::kBFloat16, at::kLong,
                                   at::kInt,   at::kShort,  at::kChar, at::kByte,     at::kBool};
  for (const at::ScalarType dtype : dtypes) dict[c10::toString(dtype)] = at::arange(2, at::kFloat).to(dtype);
  save_checkpoint(folder / "c.pt", dict);
  const Dict read = load_checkpoint(folder / "c.pt");
  for (const at::ScalarType dtype : dtypes) {
    const at::Tensor& tensor = read.at(c10::toString(dtype)).as_tensor();
    EXPECT_EQ(tensor.scalar_type(), dtype);
    EXPECT_EQ(tensor[1].item<double>(), 1.0);
  }
}

TEST(Checkpoint, ErrorsNameTheFileAndWhatIsWrong) {
  const TemporaryFolder folder;
  const auto error = [&](const char* name) {
    return message_of<CheckpointError>([&] { load_checkpoint(folder / name); });
  };
  EXPECT_THAT(error("missing.pt"), AllOf(HasSubstr("missing.pt"), HasSubstr("no such file")));
  write_bytes(folder / "text.pt", "this is no checkpoint");
  EXPECT_THAT(error("text.pt"), AllOf(HasSubstr("text.pt"), HasSubstr("not a checkpoint")));
  write_bytes(folder / "empty.pt", "");
  EXPECT_THAT(error("empty.pt"), HasSubstr("empty.pt"));
  std::filesystem::create_directory(folder / "folder.pt");
  EXPECT_THAT(error("folder.pt"), HasSubstr("is not a file"));
  EXPECT_THAT(message_of<CheckpointError>([&] { save_checkpoint(folder / "text.pt" / "c.pt", sample()); }),
              HasSubstr("text.pt/c.pt"));
}

TEST(Checkpoint, EveryTruncationIsAnError) {
  const TemporaryFolder folder;
  Dict small;
  small["tensor"] = at::ones({3});
  small["text"] = "words";
  save_checkpoint(folder / "c.pt", small);
  const std::string whole = read_text(folder / "c.pt");
  for (std::size_t length = 0; length < whole.size(); ++length) {
    write_bytes(folder / "cut.pt", std::string_view(whole).substr(0, length));
    ASSERT_THAT(message_of<CheckpointError>([&] { load_checkpoint(folder / "cut.pt"); }), HasSubstr("cut.pt"))
        << length;
  }
}

TEST(Checkpoint, FailedWriteLeavesTheOldFileAndNothingElse) {
  const TemporaryFolder folder;
  save_checkpoint(folder / "c.pt", sample());
  const std::string before = read_text(folder / "c.pt");
  Dict large;
  large["tensor"] = at::ones({1 << 16});
  rlimit limit_before;
  ASSERT_EQ(::getrlimit(RLIMIT_FSIZE, &limit_before), 0);
  const auto handler_before = std::signal(SIGXFSZ, SIG_IGN);
  rlimit limit = limit_before;
  limit.rlim_cur = 1 << 16;  // the disk is full after 64 KiB
  ::setrlimit(RLIMIT_FSIZE, &limit);
  const std::string error = message_of<CheckpointError>([&] { save_checkpoint(folder / "c.pt", large); });
  ::setrlimit(RLIMIT_FSIZE, &limit_before);
  std::signal(SIGXFSZ, handler_before);
  EXPECT_THAT(error, AllOf(HasSubstr("c.pt"), HasSubstr("cannot be written")));
  EXPECT_EQ(read_text(folder / "c.pt"), before);
  const auto entries = std::filesystem::directory_iterator(folder.path());
  EXPECT_EQ(std::distance(begin(entries), end(entries)), 1);
}

TEST(Checkpoint, RefusesTextThatIsNotUtf8) {
  const TemporaryFolder folder;
  for (const char* bad :
       {"\xff", "a\x80", "\xc0\x80", "\xe0\x80\x80", "\xed\xa0\x80", "\xf4\x90\x80\x80", "\xe8\xaf"}) {
    Dict dict;
    dict["text"] = bad;
    EXPECT_THAT(message_of<CheckpointError>([&] { save_checkpoint(folder / "c.pt", dict); }), HasSubstr("UTF-8"));
  }
  EXPECT_FALSE(std::filesystem::exists(folder / "c.pt"));
}

TEST(Value, AccessorsSayWhatWasExpectedAndFound) {
  Dict dict;
  dict["text"] = "x";
  EXPECT_EQ(message_of<CheckpointError>([&] { dict.at("number"); }),
            "checkpoint dict: expected the key \"number\", found none");
  EXPECT_EQ(message_of<CheckpointError>([&] { dict.at(int64_t{3}); }),
            "checkpoint dict: expected the key 3, found none");
  EXPECT_EQ(message_of<CheckpointError>([&] { dict.at("text").as_int(); }),
            "checkpoint value: expected int, found str");
  EXPECT_EQ(message_of<CheckpointError>([&] { Value(1.5).as_tensor(); }),
            "checkpoint value: expected Tensor, found float");
  EXPECT_EQ(Value(2).as_double(), 2.0);
}

TEST(ModuleState, ListsEveryNameThatDoesNotFit) {
  TinyTask task, other;
  Dict state = module_state(task.model());
  EXPECT_EQ(state.size(), 5u);
  Dict wrong;
  for (const auto& [key, value] : state) {
    if (key != DictKey("hidden_bias")) wrong[key] = value;
  }
  wrong["output_weight"] = at::ones({2, 8});
  wrong["surplus"] = at::ones({1});
  const at::Tensor before = flat_weights(other.model());
  EXPECT_EQ(message_of<CheckpointError>([&] { load_module_state(other.model(), wrong); }),
            "weights that do not fit the model; missing: hidden_bias; unexpected: surplus; of another shape: "
            "output_weight (expected [3, 8], found [2, 8])");
  EXPECT_TRUE(at::equal(flat_weights(other.model()), before));
}

TEST(ModuleState, LoadsAcrossDtypes) {
  TinyTask::Options options;
  options.dtype = at::kDouble;
  TinyTask task, other(options);
  for (at::Tensor& parameter : task.model().parameters()) parameter.detach().fill_(0.5);
  load_module_state(other.model(), module_state(task.model()));
  EXPECT_TRUE(at::equal(flat_weights(other.model()), flat_weights(task.model())));
}

}  // namespace
}  // namespace strobe::train

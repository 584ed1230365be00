#include "train/pickle.h"
#include "tests/message_of.h"

#include <ATen/ops/arange.h>
#include <ATen/ops/ones.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <random>

namespace strobe::train {
namespace {

using ::testing::HasSubstr;

/// Reads a pickle whose storages are those of `pickle`.
Value read(std::string_view data, const Pickle& pickle = {}) {
  return read_pickle(data, [&](const std::string& name, std::size_t) {
    const std::size_t index = std::stoul(name);
    if (index >= pickle.storages.size()) throw CheckpointError("no such storage");
    return pickle.storages[index];
  });
}

std::string error_of(std::string_view data) {
  return message_of<CheckpointError>([&] { read(data); });
}

/// A whole pickle of protocol 2 with this body.
std::string pickled(const std::string& body) { return "\x80\x02" + body + "."; }

Pickle sample() {
  Dict dict;
  dict["weight"] = at::arange(6, at::kFloat).reshape({2, 3});
  dict["half"] = at::ones({4}, at::kHalf);
  dict["list"] = List{1, 1000, 100000, int64_t{1} << 50, 2.5, "text", Bytes{"b\xff"}, Tuple{{Value(), true}}};
  return write_pickle(dict);
}

TEST(Pickle, EveryTruncationIsAnError) {
  const Pickle pickle = sample();
  EXPECT_NO_THROW(read(pickle.data, pickle));
  for (std::size_t length = 0; length < pickle.data.size(); ++length) {
    EXPECT_THROW(read(std::string_view(pickle.data).substr(0, length), pickle), CheckpointError) << length;
  }
}

TEST(Pickle, DamagedBytesAreReadOrRefusedButNeverWorse) {
  const Pickle pickle = sample();
  std::mt19937 random(1);
  int refused = 0;
  constexpr int kTrials = 20000;
  for (int trial = 0; trial < kTrials; ++trial) {
    std::string damaged = pickle.data;
    for (int changes = 1 + static_cast<int>(random() % 3); changes > 0; --changes) {
      damaged[random() % damaged.size()] = static_cast<char>(random());
    }
    try {
      read(damaged, pickle);
    } catch (const std::exception&) {
      ++refused;
    }
  }
  EXPECT_GT(refused, kTrials / 2);
  EXPECT_LT(refused, kTrials);  // a changed letter of a text is still a pickle
}

TEST(Pickle, RefusesGlobalsByName) {
  EXPECT_THAT(error_of(pickled("cos\nsystem\nX\x04\x00\x00\x00")), HasSubstr("refused the global \"os.system\""));
  EXPECT_THAT(error_of(pickled("c__builtin__\neval\n")), HasSubstr("\"__builtin__.eval\""));
  EXPECT_THAT(error_of(pickled("c__builtin__\nset\n](K\x01"
                               "e\x85R")),
              HasSubstr("\"__builtin__.set\""));
  EXPECT_THAT(error_of(pickled("cargparse\nNamespace\n")), HasSubstr("\"argparse.Namespace\""));
}

TEST(Pickle, RefusesCallsOfAnythingElse) {
  EXPECT_THAT(error_of(pickled("ctorch\nFloatStorage\n)R")), HasSubstr("refused to call torch.FloatStorage"));
  EXPECT_THAT(error_of(pickled("K\x01)R")), HasSubstr("expected a function"));
  EXPECT_THAT(error_of(pickled("ctorch\nFloatStorage\n")), HasSubstr("has no place among the values"));
}

TEST(Pickle, RefusesOtherProtocolsAndOpcodes) {
  EXPECT_THAT(error_of(std::string("\x80\x06N.", 4)), HasSubstr("expected protocol 2 to 5, found 6"));
  EXPECT_THAT(error_of(pickled("\x82")), HasSubstr("opcode 0x82"));
}

TEST(Pickle, RefusesBrokenStacks) {
  for (const char* body :
       {"", "a", "u", "e", "t", "0", "\x85", "K\x01K\x02s", "](K\x01s", "R", "Q", "b", "}(K\x01u", "h\x05"}) {
    EXPECT_NE(error_of(pickled(body)), "") << body;
  }
  EXPECT_THAT(error_of(pickled("}N"
                               "Ns")),
              HasSubstr("as a dict's key, found NoneType"));
}

TEST(Pickle, RefusesIntsBeyond64Bits) {
  EXPECT_THAT(error_of(pickled(std::string("\x8a\x09\0\0\0\0\0\0\0\0\x01", 11))), HasSubstr("64 bits"));
}

TEST(Pickle, RefusesTensorsBeyondTheirStorage) {
  const Pickle pickle = write_pickle(at::arange(6, at::kFloat));
  // offset 0, size (6,), stride (1,)
  const std::string shape("K\x00(K\x06t(K\x01t", 10);
  const std::size_t at = pickle.data.find(shape);
  ASSERT_NE(at, std::string::npos);
  for (const std::string& other : {std::string("K\x01(K\x06t(K\x01t", 10), std::string("K\x00(K\x07t(K\x01t", 10),
                                   std::string("K\x00(K\x06t(K\x02t", 10)}) {
    std::string changed = pickle.data;
    changed.replace(at, shape.size(), other);
    EXPECT_THROW(read(changed, pickle), CheckpointError);
  }
  EXPECT_NO_THROW(read(pickle.data, pickle));
}

TEST(Pickle, SharedAndRecursiveListsStayBounded) {
  // A list that holds itself.
  EXPECT_THAT(error_of(pickled(std::string("]q\x00h\x00"
                                           "a",
                                           6))),
              HasSubstr("too deep"));
  // Thirty lists, each holding the one before twice: 2^30 values.
  std::string body = "]";
  for (char i = 0; i < 30; ++i) body += std::string("q") + i + "](h" + i + "h" + i + "e";
  EXPECT_THAT(error_of(pickled(body)), HasSubstr("too many values"));
}

}  // namespace
}  // namespace strobe::train

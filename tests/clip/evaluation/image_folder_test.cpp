#include "clip/evaluation/image_folder.h"

#include "strobe/types.h"
#include "tests/clip/evaluation/folder_test.h"
#include "tests/message_of.h"

namespace strobe::clip {
namespace {

using Folders = FolderTest;

TEST_F(Folders, AreSortedAndHoldWhatIsNamedLikeAnImage) {
  for (const char* name : {"b/2.PNG", "b/10.jpg", "b/x.txt", "b/sub/1.webp", "a/z.jpeg", "10/i.bmp", "top.png"}) {
    write(name, "x");
  }
  const ImageFolder read = read_image_folder(folder());
  EXPECT_EQ(read.classes, (std::vector<std::string>{"10", "a", "b"}));
  std::vector<std::string> names;
  std::vector<int64_t> labels;
  for (const LabelledImage& image : read.images) {
    names.push_back(std::filesystem::relative(image.file, folder()).string());
    labels.push_back(image.label);
  }
  EXPECT_EQ(names, (std::vector<std::string>{"10/i.bmp", "a/z.jpeg", "b/10.jpg", "b/2.PNG", "b/sub/1.webp"}));
  EXPECT_EQ(labels, (std::vector<int64_t>{0, 1, 2, 2, 2}));
}

TEST_F(Folders, WithoutImagesAreRefused) {
  const auto message = [&] { return message_of<Error>([&] { read_image_folder(folder()); }); };
  EXPECT_NE(message().find("found none"), std::string::npos);
  write("a/x.txt", "x");
  EXPECT_NE(message().find("a: holds no image"), std::string::npos);
  EXPECT_NE(message_of<Error>([&] { read_image_folder(folder() / "missing"); }).find("is not there"),
            std::string::npos);
}

}  // namespace
}  // namespace strobe::clip

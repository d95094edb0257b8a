#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstring>
#include <memory>
#include <random>

#include "archive.h"
#include "error.h"
#include "zip_writer.h"

namespace ingot {
namespace {

using test::write_zip;
using test::Zip64;
using test::ZipEntry;

const std::vector<ZipEntry> kEntries = {{"model/archive_format", "pt2"},
                                        {"model/ingot/manifest.json", "{\"format_version\": 1}"},
                                        {"model/ingot/weights.bin", std::string(300, 'w')},
                                        {"model/ingot/empty", ""}};

std::string refusal(std::string_view bytes) {
  try {
    read_directory(bytes, "a.pt2");
  } catch (const Error& error) {
    EXPECT_EQ(error.status, INGOT_BAD_PACKAGE);
    return error.what();
  }
  return "";
}

// Every view lies inside the file; the sanitizer builds read all of it.
void expect_inside(const std::map<std::string, std::string_view>& entries, std::string_view bytes) {
  for (const auto& [name, data] : entries) {
    ASSERT_GE(data.data(), bytes.data()) << name;
    ASSERT_LE(data.data() + data.size(), bytes.data() + bytes.size()) << name;
  }
}

class ArchiveTest : public testing::TestWithParam<Zip64> {};

TEST_P(ArchiveTest, ReadsEveryEntryInPlace) {
  const std::string zip = write_zip(kEntries, GetParam());
  const auto entries = read_directory(zip, "a.pt2");
  ASSERT_EQ(entries.size(), kEntries.size());
  EXPECT_EQ(entries.at("ingot/weights.bin"), std::string(300, 'w'));
  EXPECT_EQ(entries.at("ingot/empty"), "");
  expect_inside(entries, zip);
  for (const auto& [name, data] : entries) {
    EXPECT_EQ((data.data() - zip.data()) % 64, 0) << name;
  }
}

TEST_P(ArchiveTest, RefusesTheFileCutAtEveryByte) {
  const std::string zip = write_zip(kEntries, GetParam());
  for (size_t size = 0; size < zip.size(); size++) {
    // Exactly as long as the file, so that a read beyond it is seen.
    const std::unique_ptr<char[]> cut(new char[size]);
    std::memcpy(cut.get(), zip.data(), size);
    const std::string sentence = refusal({cut.get(), size});
    EXPECT_NE(sentence, "") << "accepted with " << size << " of " << zip.size() << " bytes";
    EXPECT_NE(sentence.find("a.pt2"), std::string::npos) << sentence;
  }
}

TEST_P(ArchiveTest, StaysInsideTheFileWhateverByteIsWrong) {
  const std::string zip = write_zip(kEntries, GetParam());
  for (size_t at = 0; at < zip.size(); at++) {
    for (const unsigned char flip : {0x01, 0x80, 0xff}) {
      std::string damaged = zip;
      damaged[at] = static_cast<char>(damaged[at] ^ flip);
      try {
        expect_inside(read_directory(damaged, "a.pt2"), damaged);
      } catch (const Error& error) {
        EXPECT_EQ(error.status, INGOT_BAD_PACKAGE) << error.what();
      }
    }
  }
}

std::string name_of(const testing::TestParamInfo<Zip64>& info) {
  return info.param == Zip64::kNone ? "Plain" : info.param == Zip64::kOnly ? "Zip64" : "Both";
}
INSTANTIATE_TEST_SUITE_P(Zip, ArchiveTest,
                         testing::Values(Zip64::kNone, Zip64::kOnly, Zip64::kBoth), name_of);

TEST(Archive, RefusesEndRecordsThatDiffer) {
  std::string zip = write_zip(kEntries, Zip64::kBoth);
  zip[zip.size() - 12] ^= 1;  // the number of entries
  EXPECT_NE(refusal(zip).find("its end records differ"), std::string::npos);
}

TEST(Archive, StaysInsideTheFileOnRandomDirectories) {
  std::mt19937 random(7);
  const std::string zip = write_zip(kEntries, Zip64::kOnly);
  for (int trial = 0; trial < 20000; trial++) {
    std::string damaged = zip;
    for (int i = 0; i < 4; i++) damaged[random() % damaged.size()] = static_cast<char>(random());
    try {
      expect_inside(read_directory(damaged, "a.pt2"), damaged);
    } catch (const Error&) {
    }
  }
}

TEST(Archive, ReadsAFileWithACommentAfterItsDirectory) {
  std::string zip = write_zip(kEntries);
  const std::string comment = "made by hand";
  zip[zip.size() - 2] = static_cast<char>(comment.size());
  EXPECT_EQ(read_directory(zip + comment, "a.pt2").size(), kEntries.size());
}

// Another reader might find another directory in them.
TEST(Archive, RefusesBytesAfterItsEnd) {
  const std::string zip = write_zip(kEntries);
  EXPECT_NE(refusal(zip + "x").find("bytes follow its end"), std::string::npos);
  EXPECT_NE(refusal(zip + zip.substr(zip.size() - 22)), "");
}

TEST(Archive, RefusesNamesThatAreNoPlainPaths) {
  for (const char* name :
       {"/etc/passwd", "model/../../x", "model/./x", "model//x", "../model/x", "model/a\\b",
        "C:/model/x", "model/a\nb", "model/\x1b[2J", "model/\xc3\xa9"})
    EXPECT_NE(refusal(write_zip({{name, "1"}})).find("no plain path"), std::string::npos) << name;
  EXPECT_NE(refusal(write_zip({{std::string("model/a\0b", 9), "1"}})), "");
}

// Readers that go by the headers, and not by the directory, would see other names.
TEST(Archive, RefusesAnEntryThatItsHeaderNamesOtherwise) {
  std::string zip = write_zip({{"model/one", "1"}});
  zip.replace(zip.find("model/one"), 9, "model/two");
  EXPECT_NE(refusal(zip).find("the header of model/one"), std::string::npos) << refusal(zip);
}

// Opening a pipe waits for who writes to it.
TEST(Archive, RefusesAPipe) {
  const std::string path = testing::TempDir() + "ingot-pipe-" + std::to_string(getpid());
  ASSERT_EQ(mkfifo(path.c_str(), 0600), 0);
  EXPECT_THROW(Archive{path}, Error);
  unlink(path.c_str());
}

TEST(Archive, RefusesWhatIsNotAZipFile) {
  EXPECT_NE(refusal(std::string(4096, 'x')).find("not an Ingot package"), std::string::npos);
  EXPECT_NE(refusal("").find("not an Ingot package"), std::string::npos);
}

TEST(Archive, RefusesCompressedEntries) {
  EXPECT_NE(refusal(write_zip({{"model/a", "abc", 8}})).find("a is compressed"), std::string::npos);
}

TEST(Archive, RefusesTheSameNameTwice) {
  EXPECT_NE(refusal(write_zip({{"model/a", "1"}, {"model/a", "2"}})).find("twice"),
            std::string::npos);
}

TEST(Archive, RefusesAnEntryOutsideAFolder) { EXPECT_NE(refusal(write_zip({{"a.txt", "1"}})), ""); }

TEST(Archive, NamesTheMissingFile) {
  try {
    Archive("/nowhere/model.pt2");
    FAIL();
  } catch (const Error& error) {
    EXPECT_EQ(error.status, INGOT_BAD_INPUT);
    EXPECT_NE(std::string(error.what()).find("/nowhere/model.pt2"), std::string::npos);
  }
}

}  // namespace
}  // namespace ingot

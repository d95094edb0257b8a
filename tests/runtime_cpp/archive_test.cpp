#include "archive.h"

#include <gtest/gtest.h>

#include <cstring>

#include "error.h"

namespace {
void put(std::string& out, uint64_t value, int bytes) {
  for (int i = 0; i < bytes; i++) out += static_cast<char>(value >> 8 * i);
}

// A zip of stored entries, written here by the specification and by nothing that reads it.
std::string zip(const std::vector<std::pair<std::string, std::string>>& entries, int method = 0) {
  std::string file, directory;
  for (const auto& [name, data] : entries) {
    const size_t local = file.size();
    put(file, 0x04034b50, 4);
    put(file, 0, 22);
    put(file, name.size(), 2);
    put(file, 3, 2);
    file += name + "xyz" + data;
    put(directory, 0x02014b50, 4);
    put(directory, 0, 6);
    put(directory, method, 2);
    put(directory, 0, 8);
    put(directory, data.size(), 4);
    put(directory, data.size(), 4);
    put(directory, name.size(), 2);
    put(directory, 0, 12);
    put(directory, local, 4);
    directory += name;
  }
  const size_t start = file.size();
  file += directory;
  put(file, 0x06054b50, 4);
  put(file, 0, 6);
  put(file, entries.size(), 2);
  put(file, directory.size(), 4);
  put(file, start, 4);
  put(file, 0, 2);
  return file;
}

const std::string kGood = zip({{"model/a", "first"}, {"model/ingot/b", ""}, {"model/c", "third"}});

std::string refusal(const std::string& bytes) {
  try {
    ingot::read_directory(bytes, "p.pt2");
  } catch (const ingot::Error& error) {
    EXPECT_EQ(error.status, INGOT_BAD_PACKAGE);
    return error.what();
  }
  return "";
}
}  // namespace

TEST(Archive, FindsEntriesWithoutTheTopFolder) {
  const auto entries = ingot::read_directory(kGood, "p.pt2");
  ASSERT_EQ(entries.size(), 3u);
  EXPECT_EQ(entries.at("a"), "first");
  EXPECT_EQ(entries.at("ingot/b"), "");
  EXPECT_EQ(entries.at("c"), "third");
}

TEST(Archive, RefusesEveryTruncation) {
  for (size_t size = 0; size < kGood.size(); size++)
    EXPECT_NE(refusal(kGood.substr(0, size)), "") << "cut to " << size << " bytes";
}

TEST(Archive, SurvivesEveryOverwrittenByte) {
  // Whatever a byte says, reading ends: in entries that lie inside the file, or in a refusal.
  for (size_t at = 0; at < kGood.size(); at++)
    for (int value : {0x00, 0x01, 0x7f, 0x80, 0xff}) {
      std::string bytes = kGood;
      bytes[at] = static_cast<char>(value);
      try {
        for (const auto& [name, data] : ingot::read_directory(bytes, "p.pt2")) {
          EXPECT_GE(data.data(), bytes.data());
          EXPECT_LE(data.data() + data.size(), bytes.data() + bytes.size());
        }
      } catch (const ingot::Error&) {
      }
    }
}

TEST(Archive, SaysWhatIsWrong) {
  EXPECT_NE(refusal("").find("is not an Ingot package"), std::string::npos);
  EXPECT_NE(refusal(std::string(100, 'x')).find("is not an Ingot package"), std::string::npos);
  EXPECT_NE(refusal(zip({{"model/a", "x"}}, 8)).find("is compressed"), std::string::npos);
  EXPECT_NE(refusal(zip({{"model/a", "x"}, {"model/a", "y"}})).find("is there twice"),
            std::string::npos);
}

TEST(Archive, MissingFilesAndFoldersAreTheCallersMistake) {
  for (const char* path : {"/nonexistent/file.pt2", "/"}) {
    try {
      ingot::Archive archive(path);
      ADD_FAILURE() << path;
    } catch (const ingot::Error& error) {
      EXPECT_EQ(error.status, INGOT_BAD_INPUT);
    }
  }
}

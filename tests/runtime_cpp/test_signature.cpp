// Sizes in a manifest, and arrays that fit them or do not.
#include <gtest/gtest.h>

#include "error.h"
#include "signature.h"

namespace ingot {
namespace {

constexpr int32_t kInt64 = 4, kFloat32 = 6;

TEST(ParseDim, Forms) {
  const auto parts = [](const char* text) {
    const Dim dim = parse_dim(text);
    return std::tuple(dim.symbol, dim.multiple, dim.offset);
  };
  EXPECT_EQ(parts("7"), std::tuple("", 0, 7));
  EXPECT_EQ(parts("T"), std::tuple("T", 1, 0));
  EXPECT_EQ(parts("s_0"), std::tuple("s_0", 1, 0));
  EXPECT_EQ(parts("B+1"), std::tuple("B", 1, 1));
  EXPECT_EQ(parts("2*T-3"), std::tuple("T", 2, -3));
}

TEST(ParseDim, Refusals) {
  for (const char* text : {"", "+1", "2*", "*T", "0*T", "T+", "T*2", "T+1+1", "T 1", "2T", "-1",
                           "99999999999999999999", "T+99999999999999999999"})
    EXPECT_THROW(parse_dim(text), std::runtime_error) << text;
  EXPECT_THROW(parse_dim(std::string(5000, 'a')), std::runtime_error);
}

class CheckInputs : public testing::Test {
 protected:
  // What is said of arrays of these shapes, float32 but for the second; "" if they fit.
  std::string refusal(const std::vector<std::vector<int64_t>>& shapes) {
    std::vector<Array> arrays;
    for (size_t i = 0; i < shapes.size(); i++)
      arrays.push_back({&data_, i == 1 ? kInt64 : kFloat32, shapes[i]});
    return refusal(arrays);
  }
  std::string refusal(const std::vector<Array>& arrays) {
    try {
      check_inputs(signature_, arrays);
      return "";
    } catch (const Error& error) {
      EXPECT_EQ(error.status, INGOT_BAD_INPUT);
      return error.what();
    }
  }

  float data_ = 0;
  const Signature signature_ = {{{"x", kFloat32, {{"T", 1, 0}, {"", 0, 8}}},
                                 {"starts", kInt64, {{"B", 1, 1}}},
                                 {"pairs", kFloat32, {{"T", 2, 0}}}},
                                {{"T", {1, 100}}}};
};

TEST_F(CheckInputs, ThoseThatFit) {
  EXPECT_EQ(refusal({{1, 8}, {2}, {2}}), "");
  EXPECT_EQ(refusal({{100, 8}, {2}, {200}}), "");
}

TEST_F(CheckInputs, EachMistakeNamesItsInput) {
  const std::vector<std::pair<std::vector<std::vector<int64_t>>, const char*>> mistakes = {
      {{{1, 8}, {2}}, "takes 3 inputs (x, starts, pairs), given are 2"},
      {{{1, 7}, {2}, {2}}, "input x must be float32 [T, 8], but is float32 [1, 7]"},
      {{{8}, {2}, {2}}, "input x must be float32 [T, 8], but is float32 [8]"},
      {{{0, 8}, {2}, {0}}, "T is 0 here and may be 1 to 100"},
      {{{101, 8}, {2}, {202}}, "T is 101 here and may be 1 to 100"},
      {{{3, 8}, {2}, {5}}, "input pairs must be float32 [2*T]"},
      {{{3, 8}, {2}, {8}}, "input pairs must be float32 [2*T]"},
      {{{3, 8}, {1}, {6}}, "input starts must be int64 [B+1]"},
      {{{-1, 8}, {2}, {2}}, "input x"},
      {{{int64_t{1} << 62, 8}, {2}, {2}}, "input x"},
  };
  for (const auto& [shapes, sentence] : mistakes)
    EXPECT_NE(refusal(shapes).find(sentence), std::string::npos) << refusal(shapes);
}

TEST(CheckInputsOf, AMultipleThatHasNo64Bits) {
  const Signature signature = {
      {{"x", kFloat32, {{"T", 1, 0}}}, {"y", kFloat32, {{"T", 999'999'999'999, 0}}}}, {}};
  float data = 0;
  const std::vector<Array> arrays = {{&data, kFloat32, {int64_t{1} << 40}}, {&data, kFloat32, {1}}};
  EXPECT_THROW(check_inputs(signature, arrays), Error);
}

TEST_F(CheckInputs, AnotherDtypeOrNoData) {
  float* data = &data_;
  EXPECT_NE(refusal({{data, kInt64, {1, 8}}, {data, kInt64, {2}}, {data, kFloat32, {2}}})
                .find("but is int64 [1, 8]"),
            std::string::npos);
  EXPECT_NE(refusal({{nullptr, kFloat32, {1, 8}}, {data, kInt64, {2}}, {data, kFloat32, {2}}})
                .find("input x has no data"),
            std::string::npos);
}

}  // namespace
}  // namespace ingot

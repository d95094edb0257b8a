// Vectors of NIST's "SHA Test Vectors for Hashing Byte-Oriented Messages" and FIPS 180-4's
// examples.
#include <gtest/gtest.h>

#include "sha256.h"

namespace ingot {
namespace {

// With the CPU's instructions, where it has them, and without.
class Sha256 : public testing::TestWithParam<bool> {
 protected:
  void SetUp() override {
    if (GetParam() && !has_sha_instructions())
      GTEST_SKIP() << "this CPU has no instructions for it";
  }
  static std::string hash(std::string_view bytes) { return sha256(bytes, GetParam()); }
};
INSTANTIATE_TEST_SUITE_P(Instructions, Sha256, testing::Bool());

TEST_P(Sha256, MatchesPublishedVectors) {
  EXPECT_EQ(hash(""), "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
  EXPECT_EQ(hash("abc"), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
  EXPECT_EQ(hash("abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq"),
            "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1");
  EXPECT_EQ(hash("\xd3"), "28969cdfa74a12c82f3bad960b0b000aca2ac329deea5c2328ebc6f2ba9802c1");
  EXPECT_EQ(hash(std::string(1000000, 'a')),
            "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0");
}

// Lengths around the places where padding needs another block; expected values from coreutils'
// sha256sum.
TEST_P(Sha256, PadsEveryLength) {
  EXPECT_EQ(hash(std::string(55, 'x')),
            "d5e285683cd4efc02d021a5c62014694958901005d6f71e89e0989fac77e4072");
  EXPECT_EQ(hash(std::string(56, 'x')),
            "04c26261370ee7541549d16dee320c723e3fd14671e66a099afe0a377c16888e");
  EXPECT_EQ(hash(std::string(63, 'x')),
            "75220b47218278e656f2013bb8f0c455a25eaf01e86c64924e9d48d89776d6f2");
  EXPECT_EQ(hash(std::string(64, 'x')),
            "7ce100971f64e7001e8fe5a51973ecdfe1ced42befe7ee8d5fd6219506b5393c");
  EXPECT_EQ(hash(std::string(65, 'x')),
            "9537c5fdf120482f7d58d25e9ed583f52c02b4e304ea814db1633ad565aed7e9");
}

}  // namespace
}  // namespace ingot

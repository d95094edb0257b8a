#include <gtest/gtest.h>

#include <cstring>
#include <set>

#include "error.h"
#include "kv_pool.h"

namespace ingot {
namespace {

TEST(KvPool, GivesEachBlockOnceAndNeverTheFirst) {
  KvPool pool(2, 9, 64);
  std::set<int64_t> taken;
  for (int i = 0; i < 8; i++) {
    const int64_t block = pool.take();
    EXPECT_GE(block, 1);
    EXPECT_LT(block, 9);
    EXPECT_TRUE(taken.insert(block).second) << block;
  }
  EXPECT_EQ(pool.take(), -1);
}

TEST(KvPool, GivesReturnedBlocksAgain) {
  KvPool pool(1, 4, 64);
  const std::vector<int64_t> blocks = {pool.take(), pool.take()};
  pool.take();
  ASSERT_EQ(pool.take(), -1);
  pool.give_back(blocks);
  EXPECT_EQ((std::set<int64_t>{pool.take(), pool.take()}),
            (std::set<int64_t>(blocks.begin(), blocks.end())));
  EXPECT_EQ(pool.take(), -1);
}

TEST(KvPool, LayersAreZeroedUint8TensorsThatDoNotOverlap) {
  KvPool pool(3, 5, 128);
  ASSERT_EQ(pool.layers().size(), 3u);
  for (size_t layer = 0; layer < 3; layer++) {
    const Array& array = pool.layers()[layer];
    EXPECT_EQ(array.scalar_type, 0);
    EXPECT_EQ(array.shape, (std::vector<int64_t>{5, 128}));
    auto* bytes = static_cast<unsigned char*>(array.data);
    for (int i = 0; i < 5 * 128; i++) ASSERT_EQ(bytes[i], 0) << "layer " << layer;
    std::memset(bytes, 0xff, 5 * 128);
  }
}

// 1 TiB: more than the machine has, which is fine as long as nobody writes to it.
TEST(KvPool, TakesMemoryOnlyAsItIsWritten) {
  KvPool pool(1, int64_t{1} << 16, int64_t{1} << 20);  // 64 GiB of addresses
  static_cast<char*>(pool.layers()[0].data)[pool.take() << 20] = 1;
}

TEST(KvPool, TakesNoMemoryForABlockThatNobodyTook) {
  KvPool pool(1, int64_t{1} << 36, 1);
  EXPECT_EQ(pool.take(), 1);
  EXPECT_EQ(pool.used(), 1);
}

TEST(KvPool, RefusesSizesThatDoNotFitAnAddress) {
  const int64_t large = int64_t{1} << 40;
  for (const int64_t layers : {int64_t{1}, large}) {
    try {
      KvPool(layers, large, large);
      FAIL() << "accepted " << layers << " layers";
    } catch (const Error& error) {
      EXPECT_EQ(error.status, INGOT_NO_SPACE);
    }
  }
}

}  // namespace
}  // namespace ingot

#include "agent/disk/space/space_watch.h"

#include "agent/base/units.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace metal::disk {
namespace {

using base::kGiB;
using base::kMiB;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

const absl::Time kStart = absl::FromUnixSeconds(1'800'000'000);

RoomView View(const std::string& role, uint64_t used_percent, uint64_t id = 1) {
  RoomView view{.role = role, .device = "nvme0n1", .mount_point = "/data", .room = {}};
  view.room = {.id = id,
               .size_bytes = 1000 * kGiB,
               .used_bytes = used_percent * 10 * kGiB,
               .free_bytes = (100 - used_percent) * 10 * kGiB,
               .inodes = 1'000'000,
               .free_inodes = 900'000};
  return view;
}

std::vector<std::string> TypesOf(const Findings& findings) {
  std::vector<std::string> types;
  for (const observe::Event& event : findings.events) types.push_back(event.type);
  return types;
}

class SpaceWatchTest : public ::testing::Test {
 protected:
  Findings Observe(const std::vector<RoomView>& views) { return watch_->Observe(views, now_); }
  // An agent that has just started.
  void Restart() {
    const std::string text = watch_->Encode();
    watch_.emplace(97);
    watch_->Restore(text);
  }

  std::optional<SpaceWatch> watch_{97};
  absl::Time now_ = kStart;
};

TEST_F(SpaceWatchTest, ALevelIsToldOncePerRiseAlsoAcrossARestart) {
  EXPECT_THAT(TypesOf(Observe({View("data", 50)})), IsEmpty());
  const Findings risen = Observe({View("data", 86)});
  ASSERT_THAT(TypesOf(risen), ElementsAre("disk.space_level"));
  EXPECT_EQ(risen.events[0].attributes.at("level"), "85");
  EXPECT_EQ(risen.events[0].severity, observe::Severity::kWarning);
  EXPECT_EQ(risen.events[0].subject, "nvme0n1:data");
  EXPECT_THAT(risen.events[0].message, HasSubstr("HINT: "));
  EXPECT_THAT(TypesOf(Observe({View("data", 84)})), IsEmpty());
  Restart();
  EXPECT_THAT(TypesOf(Observe({View("data", 86)})), IsEmpty());
  EXPECT_THAT(TypesOf(Observe({View("data", 91)})), ElementsAre("disk.space_level"));
  EXPECT_THAT(TypesOf(Observe({View("data", 40)})), ElementsAre("disk.space_recovered"));
  EXPECT_THAT(TypesOf(Observe({View("data", 61)})), ElementsAre("disk.space_level"));
}

TEST_F(SpaceWatchTest, InodesAreToldLikewise) {
  RoomView view = View("data", 10);
  view.room.free_inodes = 40'000;
  const Findings found = Observe({view});
  ASSERT_THAT(TypesOf(found), ElementsAre("disk.space_level"));
  EXPECT_EQ(found.events[0].attributes.at("what"), "inodes");
  EXPECT_EQ(watch_->SectionOf(1)->level_percent, 95);
  EXPECT_FALSE(watch_->SectionOf(1)->tight) << "40000 files can still be made";
  view.room.free_inodes = 900;
  EXPECT_EQ(Observe({view}).evidence.size(), 1u);
  EXPECT_TRUE(watch_->SectionOf(1)->tight);
  view.room.inodes = view.room.free_inodes = 0;  // without a limit
  Observe({view});
  EXPECT_FALSE(watch_->SectionOf(1)->tight);
}

TEST_F(SpaceWatchTest, TwoRolesOnOneFileSystemAreOne) {
  const Findings found = Observe({View("data", 76), View("repository", 76), View("wal", 70, 2)});
  ASSERT_EQ(found.events.size(), 2u);
  EXPECT_EQ(found.events[0].attributes.at("roles"), "data,repository");
  EXPECT_EQ(found.events[1].attributes.at("roles"), "wal");
}

TEST_F(SpaceWatchTest, FullIsAStateWithAMargin) {
  EXPECT_THAT(Observe({View("data", 97)}).evidence, IsEmpty()) << "3 % are free";
  const Findings full = Observe({View("data", 98), View("repository", 98)});
  ASSERT_EQ(full.evidence.size(), 2u) << "one for each role";
  EXPECT_EQ(full.evidence[0].fault_class, FaultClass::kFull);
  EXPECT_EQ(full.evidence[0].device, "nvme0n1");
  EXPECT_EQ(full.evidence[0].role, "data");
  EXPECT_FALSE(full.evidence[0].clears);
  EXPECT_TRUE(watch_->SectionOf(1)->tight);
  EXPECT_THAT(Observe({View("data", 98), View("repository", 98)}).evidence, IsEmpty());
  EXPECT_THAT(Observe({View("data", 96), View("repository", 96)}).evidence, IsEmpty())
      << "more than 3 % free, and not yet 4.5 %";
  EXPECT_TRUE(watch_->SectionOf(1)->tight);
  const Findings room = Observe({View("data", 95), View("repository", 95)});
  ASSERT_EQ(room.evidence.size(), 2u);
  EXPECT_TRUE(room.evidence[0].clears && room.evidence[1].clears);
  EXPECT_FALSE(watch_->SectionOf(1)->tight);
  EXPECT_THAT(Observe({View("data", 95)}).evidence, IsEmpty());
}

TEST_F(SpaceWatchTest, ASmallFileSystemKeepsAFewWalFiles) {
  RoomView view = View("data", 50);
  const auto observe = [&](uint64_t used, uint64_t free) {
    view.room.used_bytes = used * kMiB;
    view.room.free_bytes = free * kMiB;
    Observe({view});
    return *watch_->SectionOf(1);
  };
  EXPECT_FALSE(observe(330, 70).tight);
  EXPECT_EQ(observe(330, 70).least_free_bytes, 40 * kMiB) << "a tenth";
  EXPECT_TRUE(observe(365, 35).tight);
  EXPECT_FALSE(observe(365, 35).exhausted);
  EXPECT_TRUE(observe(385, 15).exhausted);
  EXPECT_EQ(observe(1800, 100).least_free_bytes, 64 * kMiB);
}

// 1000 GiB, of which 500 are used; 30 GiB an hour more.
TEST_F(SpaceWatchTest, AForecastIsToldWhenTheRoomLastsLessThanADay) {
  std::vector<std::string> types;
  RoomView view = View("data", 50);
  const auto minute = [&](uint64_t growth_mib) {
    view.room.used_bytes += growth_mib * kMiB;
    view.room.free_bytes -= growth_mib * kMiB;
    now_ += absl::Minutes(1);
    for (const observe::Event& event : Observe({view}).events) {
      if (event.type != "disk.space_forecast") continue;
      types.push_back(event.type + " " + event.attributes.at("horizon"));
    }
  };
  for (int i = 0; i < 180; ++i) minute(512);
  EXPECT_THAT(types, ElementsAre("disk.space_forecast 24h"));
  EXPECT_LT(watch_->SectionOf(1)->full_in_recent, absl::Hours(15));
  EXPECT_EQ(watch_->SectionOf(1)->full_in_long, std::nullopt) << "not known yet";
  for (int i = 0; i < 60; ++i) minute(0);
  EXPECT_EQ(types.size(), 1u) << "told once";
}

// Every night 200 GiB come and go: after the first night nobody is woken by it.
TEST_F(SpaceWatchTest, WhatHappensEveryDayIsNoForecast) {
  std::vector<std::string> told_on;
  for (int hour = 0; hour < 24 * 5; ++hour) {
    for (int part = 0; part < 6; ++part) {
      const uint64_t into = hour % 24 < 8 ? static_cast<uint64_t>(hour % 24 * 6 + part) : 0;
      RoomView view = View("data", 50);
      view.room.used_bytes += into * 4 * kGiB;
      view.room.free_bytes -= into * 4 * kGiB;
      now_ += absl::Minutes(10);
      for (const observe::Event& event : Observe({view}).events) {
        if (event.type == "disk.space_forecast") told_on.push_back(std::to_string(hour / 24));
      }
    }
  }
  EXPECT_THAT(told_on, ElementsAre("0"));
}

TEST_F(SpaceWatchTest, TextThatIsNoneIsLeftOut) {
  watch_->Restore("zz 1\n1\n\n1 x\n2 60 0 0 0 1:5 9:7\n");
  EXPECT_EQ(Observe({View("data", 50)}).events.size(), 0u);
  EXPECT_THAT(TypesOf(Observe({View("data", 61, 2)})), IsEmpty()) << "60 was told before";
}

}  // namespace
}  // namespace metal::disk

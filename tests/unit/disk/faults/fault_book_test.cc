#include "agent/disk/faults/fault_book.h"

#include <cerrno>
#include <map>

#include "gmock/gmock.h"

namespace metal::disk {
namespace {

using ::testing::ElementsAre;
using ::testing::Field;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::SizeIs;

class FaultBookTest : public ::testing::Test {
 protected:
  static Evidence See(FaultClass fault_class, Witness witness, bool clears = false) {
    Evidence evidence;
    evidence.fault_class = fault_class;
    evidence.witness = witness;
    evidence.clears = clears;
    evidence.device = "nvme0n1";
    evidence.text = std::string(WitnessName(witness)) + " saw it";
    return evidence;
  }
  static Evidence ProbeError(FaultClass fault_class, std::string role, int error_number) {
    Evidence evidence = See(fault_class, Witness::kProbe);
    evidence.role = std::move(role);
    evidence.error_number = error_number;
    evidence.delta = 1;
    return evidence;
  }
  // As many as there are sources among those of the set.
  static std::vector<Witness> OfDifferentSources(const WitnessSet& set) {
    std::map<EvidenceSource, Witness> first;
    for (size_t i = 0; i < kWitnesses; ++i) {
      const auto witness = static_cast<Witness>(i);
      if (set.contains(witness)) first.try_emplace(SourceOf(witness), witness);
    }
    std::vector<Witness> witnesses;
    for (const auto& [source, witness] : first) witnesses.push_back(witness);
    return witnesses;
  }
  std::vector<FaultNews> Take(const Evidence& evidence) {
    Evidence timed = evidence;
    timed.time = absl::UnixEpoch() + (now_ - base::MonotonicTime());
    return NewsOf(book_.Take(timed, now_));
  }
  static std::vector<FaultNews> NewsOf(const std::vector<FaultChange>& changes) {
    std::vector<FaultNews> news;
    for (const FaultChange& change : changes) news.push_back(change.news);
    return news;
  }

  FaultBook book_;
  base::MonotonicTime now_ = base::MonotonicTime() + absl::Hours(1);
};

// Every row can be raised, confirmed and cleared, by the path that its row describes.
TEST_F(FaultBookTest, EveryRowIsRaisedConfirmedAndCleared) {
  for (const FaultRow& row : FaultTable()) {
    SCOPED_TRACE(FaultClassName(row.fault_class));
    FaultBook book;
    base::MonotonicTime now = now_;
    bool confirmed = false;
    std::vector<Witness> witnesses = OfDifferentSources(row.seen_by);
    // Who is the only one has to see it again.
    while (static_cast<int>(witnesses.size()) < row.witnesses) witnesses.push_back(witnesses[0]);
    for (int i = 0; i < row.witnesses; ++i) {
      const auto changes = book.Take(See(row.fault_class, witnesses[i]), now);
      ASSERT_THAT(changes, SizeIs(1));
      confirmed = changes[0].fault.confirmed;
      EXPECT_EQ(confirmed, i + 1 == row.witnesses);
      EXPECT_EQ(changes[0].news, confirmed ? FaultNews::kConfirmed : FaultNews::kSuspected);
      now = now + absl::Seconds(1) + row.apart;
    }
    EXPECT_TRUE(confirmed);
    ASSERT_THAT(book.faults(), SizeIs(1));
    EXPECT_THAT(FaultMessage(book.faults()[0]), HasSubstr("HINT: "));
    for (int i = 0; i < row.witnesses; ++i) {
      book.Take(See(row.fault_class, witnesses[i], /*clears=*/true), now);
    }
    EXPECT_THAT(book.faults(), IsEmpty());
  }
}

TEST_F(FaultBookTest, ErrorsOfAPulledDriveAreNoFaultsOfTheirOwn) {
  EXPECT_THAT(Take(See(FaultClass::kGone, Witness::kUevent)), ElementsAre(FaultNews::kConfirmed));
  EXPECT_THAT(Take(See(FaultClass::kWriteError, Witness::kKernelLog)),
              ElementsAre(FaultNews::kMore));
  EXPECT_THAT(Take(See(FaultClass::kMediaError, Witness::kProbe)), ElementsAre(FaultNews::kMore));
  EXPECT_THAT(Take(See(FaultClass::kFsyncError, Witness::kPostgresLog)),
              ElementsAre(FaultNews::kMore));
  EXPECT_THAT(Take(See(FaultClass::kWriteError, Witness::kProbe)), IsEmpty());
  ASSERT_THAT(book_.faults(), SizeIs(1));
  EXPECT_THAT(FaultMessage(book_.faults()[0]), HasSubstr("(the device was gone)"));
  // Of another drive, and of this one once it is back, they are.
  Evidence other = See(FaultClass::kWriteError, Witness::kKernelLog);
  other.device = "nvme1n1";
  EXPECT_THAT(Take(other), ElementsAre(FaultNews::kConfirmed));
  EXPECT_THAT(Take(See(FaultClass::kGone, Witness::kUevent, /*clears=*/true)),
              ElementsAre(FaultNews::kCleared));
  EXPECT_THAT(Take(See(FaultClass::kWriteError, Witness::kKernelLog)),
              ElementsAre(FaultNews::kConfirmed));
}

TEST_F(FaultBookTest, ErrorsOfTheMomentBeforeARemovalAreTakenOver) {
  Evidence medium = See(FaultClass::kMediaError, Witness::kKernelLog);
  medium.error_number = ENODATA;  // of a sector
  Evidence other = See(FaultClass::kWriteError, Witness::kKernelLog);
  other.device = "nvme1n1";
  book_.Take(medium, now_);
  book_.Take(other, now_);
  book_.Take(See(FaultClass::kWriteError, Witness::kProbe), now_);
  const auto changes =
      book_.Take(See(FaultClass::kGone, Witness::kUevent), now_ + absl::Seconds(1));
  ASSERT_THAT(changes, SizeIs(3));
  EXPECT_EQ(changes[0].news, FaultNews::kConfirmed);
  EXPECT_EQ(changes[0].fault.fault_class, FaultClass::kGone);
  EXPECT_EQ(changes[1].news, FaultNews::kCleared);
  EXPECT_EQ(changes[1].fault.fault_class, FaultClass::kWriteError);
  EXPECT_EQ(changes[2].news, FaultNews::kMore);
  EXPECT_THAT(changes[2].fault.evidence, SizeIs(2));
  EXPECT_THAT(book_.faults(), SizeIs(3)) << "gone, the sector's and the other drive's";
}

TEST_F(FaultBookTest, ErrorsOfLongBeforeARemovalStay) {
  book_.Take(See(FaultClass::kWriteError, Witness::kProbe), now_);
  EXPECT_THAT(book_.Take(See(FaultClass::kGone, Witness::kUevent), now_ + absl::Minutes(1)),
              SizeIs(1));
  EXPECT_THAT(book_.faults(), SizeIs(2));
}

TEST_F(FaultBookTest, OneWitnessOfTwoIsASuspicion) {
  EXPECT_THAT(Take(See(FaultClass::kStalled, Witness::kProbe)), ElementsAre(FaultNews::kSuspected));
  EXPECT_THAT(Take(See(FaultClass::kStalled, Witness::kProbe)), ElementsAre(FaultNews::kMore))
      << "the same one again is no second";
  EXPECT_THAT(Take(See(FaultClass::kStalled, Witness::kSysfs)), ElementsAre(FaultNews::kConfirmed));
  EXPECT_THAT(Take(See(FaultClass::kStalled, Witness::kKernelLog)), ElementsAre(FaultNews::kMore));
  const std::vector<DiskFault> faults = book_.faults();
  ASSERT_THAT(faults, SizeIs(1));
  EXPECT_THAT(faults[0].evidence, SizeIs(3));
  EXPECT_THAT(FaultMessage(faults[0]), HasSubstr("confirmed by probe, kernel_log, sysfs: "));
  // I/O that goes on outweighs every log.
  EXPECT_THAT(Take(See(FaultClass::kStalled, Witness::kProbe, true)),
              ElementsAre(FaultNews::kCleared));
  EXPECT_THAT(book_.faults(), IsEmpty());
}

TEST_F(FaultBookTest, TwoWitnessesOfOneSourceAreOne) {
  Take(See(FaultClass::kReadOnly, Witness::kSmartLog));
  EXPECT_THAT(Take(See(FaultClass::kReadOnly, Witness::kErrorLog)), ElementsAre(FaultNews::kMore))
      << "the drive said both";
  EXPECT_THAT(Take(See(FaultClass::kReadOnly, Witness::kKernelLog)),
              ElementsAre(FaultNews::kConfirmed));
}

TEST_F(FaultBookTest, WhatIsConfirmedStaysSoUntilItEnds) {
  Take(See(FaultClass::kReadOnly, Witness::kSmartLog));
  Take(See(FaultClass::kReadOnly, Witness::kSysfs));
  EXPECT_THAT(Take(See(FaultClass::kReadOnly, Witness::kSysfs, true)),
              ElementsAre(FaultNews::kMore));
  ASSERT_THAT(book_.faults(), SizeIs(1));
  EXPECT_TRUE(book_.faults()[0].confirmed);
  EXPECT_THAT(book_.faults()[0].evidence,
              ElementsAre(Field(&Evidence::witness, Witness::kSmartLog)));
  EXPECT_THAT(Take(See(FaultClass::kReadOnly, Witness::kSysfs, true)), IsEmpty());
  EXPECT_THAT(Take(See(FaultClass::kReadOnly, Witness::kSmartLog, true)),
              ElementsAre(FaultNews::kCleared));
}

TEST_F(FaultBookTest, AsOftenWithinItsTimeConfirmsToo) {
  const Evidence reset = See(FaultClass::kControllerReset, Witness::kKernelLog);
  EXPECT_THAT(Take(reset), ElementsAre(FaultNews::kSuspected));
  now_ = now_ + absl::Minutes(61);
  EXPECT_THAT(Take(reset), ElementsAre(FaultNews::kMore)) << "two, but not within an hour";
  now_ = now_ + absl::Minutes(59);
  EXPECT_THAT(Take(reset), ElementsAre(FaultNews::kConfirmed));
}

TEST_F(FaultBookTest, WhatAnyClientCanWriteIntoALogConfirmsNothingByItself) {
  Evidence line = See(FaultClass::kMediaError, Witness::kPostgresLog);
  line.hearsay = true;
  EXPECT_THAT(Take(line), ElementsAre(FaultNews::kSuspected));
  Evidence page = See(FaultClass::kCorruption, Witness::kPostgresLog);
  page.hearsay = true;
  for (int i = 0; i < 10; ++i) {
    Take(page);
    now_ = now_ + absl::Minutes(1);
  }
  EXPECT_FALSE(book_.faults()[0].confirmed || book_.faults()[1].confirmed);
  EXPECT_THAT(Take(See(FaultClass::kMediaError, Witness::kKernelLog)),
              ElementsAre(FaultNews::kConfirmed));
  EXPECT_THAT(Take(See(FaultClass::kCorruption, Witness::kProbe)),
              ElementsAre(FaultNews::kConfirmed))
      << "another source, and what it is told of fits";
}

TEST_F(FaultBookTest, WhoTheTableDoesNotNameConfirmsNothing) {
  EXPECT_THAT(Take(See(FaultClass::kFsyncError, Witness::kPeers)),
              ElementsAre(FaultNews::kSuspected));
  Take(See(FaultClass::kStalled, Witness::kProbe));
  EXPECT_THAT(Take(See(FaultClass::kStalled, Witness::kPostgresLog)),
              ElementsAre(FaultNews::kMore));
  for (int i = 0; i < 3; ++i) {
    Take(See(FaultClass::kControllerReset, Witness::kProbe));
    now_ = now_ + absl::Minutes(6);
  }
  for (const DiskFault& fault : book_.faults()) {
    EXPECT_FALSE(fault.confirmed) << FaultClassName(fault.fault_class);
  }
  EXPECT_THAT(Take(See(FaultClass::kStalled, Witness::kSysfs)), ElementsAre(FaultNews::kConfirmed));
}

TEST_F(FaultBookTest, AnEventThatIsToldTwiceIsSeenOnce) {
  const Evidence page = See(FaultClass::kCorruption, Witness::kProbe);
  EXPECT_THAT(Take(page), ElementsAre(FaultNews::kSuspected));
  now_ = now_ + absl::Seconds(9);
  EXPECT_THAT(Take(page), ElementsAre(FaultNews::kMore));
  now_ = now_ + absl::Seconds(1);
  EXPECT_THAT(Take(page), ElementsAre(FaultNews::kConfirmed));
}

TEST_F(FaultBookTest, AWitnessThatSeesSomethingElseHasNotSeenTheEnd) {
  Take(See(FaultClass::kGone, Witness::kUevent));
  Take(See(FaultClass::kGone, Witness::kProbe));
  Evidence other = See(FaultClass::kGone, Witness::kProbe);
  other.retracts = true;
  EXPECT_THAT(Take(other), ElementsAre(FaultNews::kMore));
  ASSERT_THAT(book_.faults(), SizeIs(1));
  EXPECT_TRUE(book_.faults()[0].confirmed);
  EXPECT_THAT(Take(See(FaultClass::kGone, Witness::kProbe, /*clears=*/true)),
              ElementsAre(FaultNews::kCleared));
}

TEST_F(FaultBookTest, ALogCountsForAWhileAndAStateUntilItSaysOtherwise) {
  Take(See(FaultClass::kMediaError, Witness::kKernelLog));
  Take(See(FaultClass::kMediaError, Witness::kProbe));
  now_ = now_ + absl::Hours(23);
  EXPECT_THAT(NewsOf(book_.Expire(now_)), IsEmpty());
  now_ = now_ + absl::Hours(1);
  EXPECT_THAT(NewsOf(book_.Expire(now_)), ElementsAre(FaultNews::kMore));
  now_ = now_ + absl::Hours(1000);
  EXPECT_THAT(NewsOf(book_.Expire(now_)), IsEmpty()) << "the probe still says so";
  Take(See(FaultClass::kMediaError, Witness::kProbe, true));
  EXPECT_THAT(book_.faults(), IsEmpty());

  Evidence growth = See(FaultClass::kMediaError, Witness::kSmartLog);
  growth.delta = 1;
  Take(growth);
  now_ = now_ + absl::Hours(24);
  EXPECT_THAT(NewsOf(book_.Expire(now_)), ElementsAre(FaultNews::kCleared));
}

TEST_F(FaultBookTest, ADriveThatIsGoneInALogAloneIsSoForADay) {
  Take(See(FaultClass::kGone, Witness::kKernelLog));
  now_ = now_ + absl::Hours(24);
  EXPECT_THAT(NewsOf(book_.Expire(now_)), ElementsAre(FaultNews::kCleared));
  Take(See(FaultClass::kGone, Witness::kKernelLog));
  Take(See(FaultClass::kGone, Witness::kSysfs));
  now_ = now_ + absl::Hours(1000);
  EXPECT_THAT(NewsOf(book_.Expire(now_)), ElementsAre(FaultNews::kMore));
  EXPECT_THAT(book_.faults(), SizeIs(1)) << "sysfs does not show it";
}

TEST_F(FaultBookTest, FileSystemsOfOneDriveAreToldApart) {
  Evidence data = See(FaultClass::kFull, Witness::kFilesystem);
  data.role = "data";
  Evidence wal = data;
  wal.role = "wal";
  EXPECT_THAT(Take(data), ElementsAre(FaultNews::kConfirmed));
  EXPECT_THAT(Take(wal), ElementsAre(FaultNews::kConfirmed));
  EXPECT_THAT(book_.faults(), ElementsAre(Field(&DiskFault::subject, "nvme0n1:data"),
                                          Field(&DiskFault::subject, "nvme0n1:wal")));
  data.clears = true;
  EXPECT_THAT(Take(data), ElementsAre(FaultNews::kCleared));
  EXPECT_THAT(book_.faults(), ElementsAre(Field(&DiskFault::subject, "nvme0n1:wal")));

  Evidence media = See(FaultClass::kMediaError, Witness::kProbe);
  media.role = "data";
  Take(media);
  media.role = "wal";
  Take(media);
  EXPECT_THAT(book_.faults(), SizeIs(2)) << "a drive's fault is one, whoever meets it";
}

TEST_F(FaultBookTest, ADriveThatIsNotUsedAnyMoreTakesItsFaultsWithIt) {
  Take(See(FaultClass::kCorruption, Witness::kProbe));
  Evidence other = See(FaultClass::kCorruption, Witness::kProbe);
  other.device = "nvme1n1";
  Take(other);
  EXPECT_THAT(NewsOf(book_.Forget("nvme0n1")), ElementsAre(FaultNews::kCleared));
  EXPECT_THAT(book_.faults(), ElementsAre(Field(&DiskFault::device, "nvme1n1")));
}

TEST_F(FaultBookTest, WhatOnlyAForgottenRoleHasSeenEnds) {
  Evidence probe = See(FaultClass::kStalled, Witness::kProbe);
  probe.role = "data";
  Take(probe);
  Take(See(FaultClass::kStalled, Witness::kSysfs));
  Evidence full = See(FaultClass::kFull, Witness::kFilesystem);
  full.role = "data";
  Take(full);
  EXPECT_THAT(NewsOf(book_.ForgetRole("data")), ElementsAre(FaultNews::kMore, FaultNews::kCleared));
  ASSERT_THAT(book_.faults(), SizeIs(1));
  EXPECT_THAT(book_.faults()[0].evidence, ElementsAre(Field(&Evidence::witness, Witness::kSysfs)));
  EXPECT_THAT(NewsOf(book_.ForgetRole("wal")), IsEmpty());
}

// A drive that is well answers through a file system that was shut down as if it were not.
TEST_F(FaultBookTest, WhatAProbeReadsFromAFileSystemThatIsShutDownSaysNothingOfTheMedium) {
  Evidence told = See(FaultClass::kFilesystemShutdown, Witness::kKernelLog);
  told.role = "data";
  EXPECT_THAT(Take(told), ElementsAre(FaultNews::kSuspected));
  EXPECT_THAT(Take(ProbeError(FaultClass::kMediaError, "data", EIO)),
              ElementsAre(FaultNews::kConfirmed));
  ASSERT_THAT(book_.faults(), SizeIs(1));
  EXPECT_EQ(book_.faults()[0].fault_class, FaultClass::kFilesystemShutdown);

  // What names the medium is of the drive, and so is what another role's file system answers.
  EXPECT_THAT(Take(ProbeError(FaultClass::kMediaError, "data", ENODATA)),
              ElementsAre(FaultNews::kConfirmed));
  EXPECT_THAT(Take(ProbeError(FaultClass::kMediaError, "wal", EIO)), ElementsAre(FaultNews::kMore));
  EXPECT_THAT(book_.faults(), SizeIs(2));
}

TEST_F(FaultBookTest, AWriteThatAShutdownLostStaysAFaultWhenItIsMountedAgain) {
  Evidence told = See(FaultClass::kFilesystemShutdown, Witness::kFilesystem);
  told.role = "data";
  Take(told);
  EXPECT_THAT(Take(ProbeError(FaultClass::kWriteError, "data", EIO)),
              ElementsAre(FaultNews::kConfirmed, FaultNews::kConfirmed));
  told.clears = true;
  Take(told);
  ASSERT_THAT(book_.faults(), SizeIs(1));
  EXPECT_EQ(book_.faults()[0].fault_class, FaultClass::kWriteError);
}

TEST_F(FaultBookTest, HearsayOfAShutdownExplainsNoErrorOfAProbe) {
  Evidence told = See(FaultClass::kFilesystemShutdown, Witness::kPostgresLog);
  told.role = "data";
  told.hearsay = true;
  EXPECT_THAT(Take(told), ElementsAre(FaultNews::kSuspected));
  Take(ProbeError(FaultClass::kMediaError, "data", EIO));
  for (const DiskFault& each : book_.faults())
    EXPECT_EQ(each.confirmed, each.fault_class == FaultClass::kMediaError);
}

TEST_F(FaultBookTest, AShutdownThatOnlyAProbeTellsOfExplainsNoErrorOfAProbe) {
  Evidence told = See(FaultClass::kFilesystemShutdown, Witness::kProbe);
  told.role = "data";
  EXPECT_THAT(Take(told), ElementsAre(FaultNews::kSuspected));
  EXPECT_THAT(Take(ProbeError(FaultClass::kMediaError, "data", EIO)),
              ElementsAre(FaultNews::kConfirmed));
  EXPECT_THAT(book_.faults(), SizeIs(2));
}

}  // namespace
}  // namespace metal::disk

#include "agent/store/pack_writer.h"

#include <sys/stat.h>

#include <string>

#include "agent/base/file.h"
#include "agent/base/status.h"
#include "gtest/gtest.h"
#include "tests/harness/faulty_engine.h"
#include "tests/harness/status_matchers.h"
#include "tests/harness/temp_dir.h"

namespace metal::store {
namespace {

using testing::StatusIs;

class PackWriterTest : public ::testing::Test {
 protected:
  PackWriter::Options Options() {
    PackWriter::Options options;
    options.directory = dir_.path();
    options.system_identifier = 42;
    options.label = "b";
    options.buffer_count = 3;
    options.buffer_size = 16 << 10;
    options.pack_size_max = 100 << 10;
    options.preallocate = 32 << 10;
    return options;
  }

  // Runs writes until a frame fits, or all are done.
  absl::Status Drive(PackWriter& writer, uring::IoEngine& engine, size_t size) {
    while (size == 0 ? !writer.idle() : !writer.CanAppend(size)) {
      while (uring::IoRequest* request = writer.NextWrite()) engine.Submit(request);
      std::vector<uring::IoRequest*> done;
      const absl::Status reaped = engine.Reap(done, absl::Seconds(10));
      if (!reaped.ok()) return reaped;
      for (uring::IoRequest* request : done) {
        const absl::Status status = writer.Complete(request);
        if (!status.ok()) return status;
      }
    }
    return absl::OkStatus();
  }

  static std::string Frame(int i) {
    return std::string(100 + (i * 7919) % 9000, static_cast<char>('a' + i % 26));
  }

  // Appends 60 frames; places_ says where they lie.
  absl::Status WriteAll(PackWriter& writer, uring::IoEngine& engine) {
    places_.clear();
    for (int i = 0; i < 60; ++i) {
      const std::string frame = Frame(i);
      absl::Status status = Drive(writer, engine, frame.size());
      if (!status.ok()) return status;
      const auto bytes = std::as_bytes(std::span(frame));
      const auto place = writer.Append(bytes.first(32), bytes.subspan(32));
      if (!place.ok()) return place.status();
      places_.push_back(*place);
    }
    writer.Seal();
    absl::Status status = Drive(writer, engine, 0);
    while (PackFile* pack = writer.TakeWritten()) {
      if (status.ok()) status = FinishPack(*pack);
    }
    return status;
  }

  void ExpectContents(const PackWriter& writer) {
    std::vector<std::string> packs;
    for (const auto& pack : writer.packs()) {
      packs.push_back(*base::ReadFile(pack->path));
      EXPECT_EQ(packs.back().size(), pack->size);
      EXPECT_LE(pack->size, 100u << 10);
    }
    for (int i = 0; i < 60; ++i) {
      EXPECT_EQ(packs[places_[i].pack].substr(places_[i].offset, Frame(i).size()), Frame(i)) << i;
    }
  }

  testing::TempDir dir_;
  std::vector<PackWriter::Place> places_;
};

TEST_F(PackWriterTest, FramesLieWhereItSays) {
  auto engine = uring::MakeEngine(uring::EngineKind::kPread, 8);
  ASSERT_OK(engine);
  PackWriter writer(Options());
  ASSERT_OK(WriteAll(writer, *engine->engine));
  ExpectContents(writer);
  EXPECT_GT(writer.packs().size(), 1u);
  const std::string first = *base::ReadFile(dir_.File("1.pack"));
  const auto header = DecodePackHeader(std::as_bytes(std::span(first)).first<kPackHeaderSize>());
  ASSERT_OK(header);
  EXPECT_EQ(*header, (PackHeader{42, 1, "b"}));
}

TEST_F(PackWriterTest, EveryFailingWriteIsReportedOrOvercome) {
  struct Case {
    testing::FaultKind kind;
    int error;
    bool harmless;
    absl::StatusCode code;
  };
  for (const Case& c :
       {Case{testing::FaultKind::kError, EIO, false, absl::StatusCode::kDataLoss},
        Case{testing::FaultKind::kError, ENOSPC, false, absl::StatusCode::kResourceExhausted},
        Case{testing::FaultKind::kError, EINVAL, true, absl::StatusCode::kOk},
        Case{testing::FaultKind::kShort, 0, true, absl::StatusCode::kOk}}) {
    for (uint64_t nth = 1;; ++nth) {
      testing::Fault fault;
      fault.nth = nth;
      fault.kind = c.kind;
      fault.error = c.error;
      auto inner = uring::MakeEngine(uring::EngineKind::kPread, 8);
      ASSERT_OK(inner);
      testing::FaultyEngine engine(std::move(inner->engine), fault);
      PackWriter writer(Options());
      const absl::Status status = WriteAll(writer, engine);
      if (engine.fired() == 0 || c.harmless) {
        ASSERT_OK(status);
        ExpectContents(writer);
      } else {
        EXPECT_THAT(status, StatusIs(c.code, ::testing::HasSubstr(".pack")));
      }
      for (int n = 1; n < 10; ++n)
        ASSERT_OK(base::RemoveTree(dir_.File(fmt::format("{}.pack", n))));
      if (engine.fired() == 0) break;
    }
  }
}

}  // namespace
}  // namespace metal::store

// A repeated request gets its first answer.
#include <gtest/gtest.h>

#include <atomic>

#include "tests/unit/node/operations/operations_fixture.h"

namespace metal::node {
namespace {

using ::metal::testing::StatusIs;
using ::testing::HasSubstr;

TEST_F(OperationsTest, SameRequestGivesTheSameOperation) {
  auto manager = Open();
  std::atomic<int> runs{0};
  const OperationBody body = [&](OperationContext&) -> absl::StatusOr<OperationResult> {
    ++runs;
    return OperationResult{};
  };
  ASSERT_OK_AND_ASSIGN(const Operation first, manager->Start(Spec("StopPostgres", "r1"), body));
  Done(*manager, first.name);
  ASSERT_OK_AND_ASSIGN(const Operation again, manager->Start(Spec("StopPostgres", "r1"), body));
  EXPECT_EQ(again.name, first.name);
  manager.reset();
  manager = Open();  // also after a restart
  ASSERT_OK_AND_ASSIGN(const Operation later, manager->Start(Spec("StopPostgres", "r1"), body));
  EXPECT_EQ(later.name, first.name);
  EXPECT_EQ(runs, 1);

  OperationSpec other = Spec("StopPostgres", "r1");
  other.parameters["mode"] = "smart";
  const auto reused = manager->Start(other, body);
  EXPECT_THAT(reused, StatusIs(absl::StatusCode::kInvalidArgument));
  EXPECT_EQ(ReasonOf(reused.status()), "REQUEST_ID_REUSED");

  clock_.Advance(absl::Hours(25));  // forgotten by now
  ASSERT_OK_AND_ASSIGN(const Operation fresh, manager->Start(other, body));
  EXPECT_NE(fresh.name, first.name);
  Done(*manager, fresh.name);
}

TEST_F(OperationsTest, ShortCallsAreRememberedToo) {
  auto manager = Open();
  int runs = 0;
  const auto run = [&]() -> absl::StatusOr<std::string> {
    ++runs;
    return std::string("bytes\0with nul", 14);
  };
  RequestContext request;
  request.request_id = "r1";
  request.body_hash = "h1";
  ASSERT_OK_AND_ASSIGN(const std::string first, manager->RunOnce(request, "ApplyConfig", run));
  manager.reset();
  manager = Open();
  ASSERT_OK_AND_ASSIGN(const std::string again, manager->RunOnce(request, "ApplyConfig", run));
  EXPECT_EQ(first, again);
  EXPECT_EQ(runs, 1);

  EXPECT_EQ(ReasonOf(manager->RunOnce(request, "ReloadConfig", run).status()), "REQUEST_ID_REUSED");
  // An operation may not take the id of a short call, nor the other way round.
  EXPECT_EQ(ReasonOf(manager->Start(Spec("StopPostgres", "r1"), Succeed()).status()),
            "REQUEST_ID_REUSED");
  ASSERT_OK_AND_ASSIGN(const Operation operation, manager->Start(Spec("X", "r2"), Succeed()));
  Done(*manager, operation.name);
  request.request_id = "r2";
  EXPECT_EQ(ReasonOf(manager->RunOnce(request, "ApplyConfig", run).status()), "REQUEST_ID_REUSED");
  request.body_hash = "h2";
  request.request_id = "r1";
  EXPECT_EQ(ReasonOf(manager->RunOnce(request, "ApplyConfig", run).status()), "REQUEST_ID_REUSED");

  clock_.Advance(absl::Hours(25));
  EXPECT_TRUE(manager->RunOnce(request, "ApplyConfig", run).ok());
  EXPECT_EQ(runs, 2);
}

TEST_F(OperationsTest, ErrorsOfShortCallsAreNotRemembered) {
  auto manager = Open();
  RequestContext request;
  request.request_id = "r1";
  EXPECT_FALSE(
      manager
          ->RunOnce(request, "ReloadConfig",
                    [] { return absl::StatusOr<std::string>(absl::UnavailableError("x")); })
          .ok());
  EXPECT_TRUE(
      manager->RunOnce(request, "ReloadConfig", [] { return absl::StatusOr<std::string>("y"); })
          .ok());
}

TEST_F(OperationsTest, RepeatedRequestIsFoundBeforeAnythingElse) {
  auto manager = Open();
  OperationSpec spec = Spec("StopPostgres", "r1");
  spec.request.body_hash = "h1";
  EXPECT_FALSE((*manager->FindByRequest(spec.request)).has_value());
  ASSERT_OK_AND_ASSIGN(const Operation first, manager->Start(spec, Succeed()));
  Done(*manager, first.name);
  ASSERT_OK_AND_ASSIGN(const auto found, manager->FindByRequest(spec.request));
  ASSERT_TRUE(found.has_value());
  EXPECT_EQ(found->name, first.name);
  spec.request.body_hash = "h2";
  EXPECT_EQ(ReasonOf(manager->FindByRequest(spec.request).status()), "REQUEST_ID_REUSED");
  spec.request.request_id = "r2";
  EXPECT_FALSE((*manager->FindByRequest(spec.request)).has_value());
}

}  // namespace
}  // namespace metal::node

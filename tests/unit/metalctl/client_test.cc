#include "tools/metalctl/client.h"

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/harness/temp_dir.h"
#include "tools/metalctl/follow.h"

namespace metal::ctl {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::Not;

// An agent that answers each GetStatus with one error, and whose watches end after two statuses
// each.
class FakeAgent : public v1::HostService::Service {
 public:
  explicit FakeAgent(const std::string& endpoint) {
    grpc::ServerBuilder builder;
    builder.AddListeningPort(endpoint, grpc::InsecureServerCredentials());
    builder.RegisterService(this);
    server_ = builder.BuildAndStart();
  }
  ~FakeAgent() override { server_->Shutdown(std::chrono::system_clock::now()); }

  grpc::Status GetStatus(grpc::ServerContext*, const v1::GetStatusRequest*,
                         v1::GetStatusResponse*) override {
    return answer;
  }
  grpc::Status WatchStatus(grpc::ServerContext*, const v1::WatchStatusRequest*,
                           grpc::ServerWriter<v1::WatchStatusResponse>* writer) override {
    ++watches;
    v1::WatchStatusResponse response;
    for (const uint64_t revision : {1, 2}) {
      response.mutable_status()->set_revision(revision);
      writer->Write(response);
    }
    if (watches == 1) return grpc::Status::OK;  // as an agent that shuts down
    if (watches == 2) return {grpc::StatusCode::CANCELLED, ""};
    return {grpc::StatusCode::PERMISSION_DENIED, "enough"};
  }

  grpc::Status answer;
  int watches = 0;

 private:
  std::unique_ptr<grpc::Server> server_;
};

class ClientCallTest : public ::testing::Test {
 protected:
  // Exit code of a GetStatus; fills said_.
  int Call(bool json = false) {
    ClientOptions options;
    options.endpoint = endpoint_;
    options.json = json;
    const Client client(options);
    grpc::ClientContext context;
    client.Prepare(context);
    v1::GetStatusResponse response;
    const grpc::Status status = client.host->GetStatus(&context, {}, &response);
    ::testing::internal::CaptureStderr();
    const int code = client.Fail(status);
    said_ = ::testing::internal::GetCapturedStderr();
    return code;
  }

  testing::TempDir dir_;
  std::string endpoint_ = "unix:" + dir_.path() + "/agent.sock";
  std::string said_;
};

TEST_F(ClientCallTest, WhatTheAgentCannotDoNowIsNotAnAbsentAgent) {
  FakeAgent agent(endpoint_);
  agent.answer = {grpc::StatusCode::UNAVAILABLE, "connection to postgres is lost"};
  EXPECT_EQ(Call(), kExitRefused);
  EXPECT_EQ(said_, "metalctl: connection to postgres is lost\nHINT: try again\n");
}

TEST_F(ClientCallTest, AnAbsentAgentIsNamedWithItsEndpoint) {
  EXPECT_EQ(Call(), kExitUnreachable);
  EXPECT_THAT(said_, HasSubstr("no agent answers at " + endpoint_));
}

TEST_F(ClientCallTest, AnAgentLostDuringACallMayHaveDoneIt) {
  ClientOptions options;
  options.endpoint = endpoint_;
  ::testing::internal::CaptureStderr();
  EXPECT_EQ(Client(options).Fail({grpc::StatusCode::UNAVAILABLE, "Socket closed"}),
            kExitUnreachable);
  EXPECT_EQ(::testing::internal::GetCapturedStderr(),
            "metalctl: lost the agent at " + endpoint_ +
                " before it answered: Socket closed\nHINT: a change that was asked for may have "
                "been made: metalctl status\n");
}

TEST_F(ClientCallTest, TheAgentsDeadlineIsNotOurs) {
  FakeAgent agent(endpoint_);
  agent.answer = {grpc::StatusCode::DEADLINE_EXCEEDED, "not replayed within 1s"};
  EXPECT_EQ(Call(), kExitTimeout);
  EXPECT_THAT(said_, Not(HasSubstr("no answer")));
}

TEST_F(ClientCallTest, JsonErrorsGoToStandardErrorInOneLine) {
  FakeAgent agent(endpoint_);
  agent.answer = {grpc::StatusCode::NOT_FOUND, "gone. HINT: look"};
  EXPECT_EQ(Call(true), kExitNotFound);
  EXPECT_EQ(
      said_,
      R"({"error":{"code":"NOT_FOUND","reason":"","message":"gone.","hint":"look","metadata":{}}})"
      "\n");
}

TEST_F(ClientCallTest, AStreamThatTheAgentEndsBeginsAgain) {
  FakeAgent agent(endpoint_);
  ClientOptions options;
  options.endpoint = endpoint_;
  const Client client(options);
  std::vector<uint64_t> seen;
  ::testing::internal::CaptureStderr();
  const int exit_code = FollowStream<v1::WatchStatusResponse>(
      client, {.due = absl::Seconds(10), .answers = nullptr, .worked = false},
      [&](grpc::ClientContext* context, grpc::CompletionQueue* queue) {
        return client.host->PrepareAsyncWatchStatus(context, {}, queue);
      },
      [&](const v1::WatchStatusResponse& each) { seen.push_back(each.status().revision()); },
      [](const grpc::Status&) { return false; });
  const std::string said = ::testing::internal::GetCapturedStderr();
  EXPECT_EQ(exit_code, kExitRefused) << "the third watch was refused";
  EXPECT_THAT(seen, ElementsAre(1, 2, 1, 2, 1, 2));
  EXPECT_THAT(said, HasSubstr("is gone; trying again"));
  EXPECT_THAT(said, HasSubstr("enough"));
}

}  // namespace
}  // namespace metal::ctl

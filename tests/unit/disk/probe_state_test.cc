#include "agent/disk/probe_state.h"

#include <cerrno>
#include <deque>
#include <set>

#include "gtest/gtest.h"

namespace metal::disk {
namespace {

// A prober's counters and a clock, moved by the events of a scenario.
class Scenario {
 public:
  explicit Scenario(ProbeLimits limits = {}) : limits_(limits), machine_(limits) {
    seen_.phase = ProbePhase::kRunning;
  }

  void OnTime(int count = 1) {
    for (int i = 0; i < count; ++i) {
      ++seen_.on_time;
      ++seen_.on_time_in_a_row;
      seen_.late_in_a_row = 0;
      seen_.oldest_outstanding.reset();
      Tick();
    }
  }
  void Late(int count = 1) {
    for (int i = 0; i < count; ++i) {
      ++seen_.late;
      ++seen_.late_in_a_row;
      seen_.on_time_in_a_row = 0;
      seen_.oldest_outstanding.reset();
      Tick();
    }
  }
  void Error(ProbeFault fault = ProbeFault::kMediaError) {
    ++seen_.errors;
    seen_.on_time_in_a_row = 0;
    seen_.late_in_a_row = 0;
    seen_.last_fault = fault;
    seen_.oldest_outstanding.reset();
    Tick();
  }
  void Outstanding(absl::Duration age) {
    seen_.oldest_outstanding = age;
    Tick();
  }
  void Phase(ProbePhase phase) {
    seen_.phase = phase;
    seen_.oldest_outstanding.reset();
    Tick();
  }
  void Pass(absl::Duration time) {
    now_ = now_ + time;
    Tick();
  }

  void Tick() {
    now_ = now_ + absl::Milliseconds(200);
    const ProbeState from = machine_.state();
    signal_ = machine_.Observe(seen_, now_);
    taken_.insert({from, signal_});
  }
  // The same machine, made to receive this signal next.
  void Provoke(ProbeSignal signal) {
    seen_.phase = ProbePhase::kRunning;
    switch (signal) {
      case ProbeSignal::kUnsupported:
        return Phase(ProbePhase::kUnsupported);
      case ProbeSignal::kError:
        return Error();
      case ProbeSignal::kStall:
        return Outstanding(limits_.stall_after);
      case ProbeSignal::kUnavailable:
        return Phase(ProbePhase::kUnavailable);
      case ProbeSignal::kLate:
        return Late(limits_.late_in_a_row);
      case ProbeSignal::kWorking:
        now_ = now_ + limits_.fault_hold;
        return OnTime(limits_.on_time_to_leave_slow);
      case ProbeSignal::kAfterError:
        return OnTime(limits_.on_time_to_leave_slow);
      case ProbeSignal::kSilent:
        seen_.oldest_outstanding.reset();
        return Pass(limits_.silent_after);
      case ProbeSignal::kNothing:
        return Tick();
    }
  }

  ProbeState state() const { return machine_.state(); }
  ProbeFault fault() const { return machine_.fault(); }
  ProbeSignal signal() const { return signal_; }
  const std::set<std::pair<ProbeState, ProbeSignal>>& taken() const { return taken_; }

 private:
  ProbeLimits limits_;
  ProbeStateMachine machine_;
  ProbeObservation seen_;
  base::MonotonicTime now_{absl::Hours(1)};
  ProbeSignal signal_ = ProbeSignal::kNothing;
  std::set<std::pair<ProbeState, ProbeSignal>> taken_;
};

TEST(ProbeStateTest, CompletionsInTimeMakeItHealthy) {
  Scenario scenario;
  scenario.OnTime(2);
  EXPECT_EQ(scenario.state(), ProbeState::kUnknown);
  scenario.OnTime();
  EXPECT_EQ(scenario.state(), ProbeState::kHealthy);
}

TEST(ProbeStateTest, AProbeOutstandingForStallAfterIsAStallAndEndsWithTheCompletions) {
  Scenario scenario;
  scenario.OnTime(10);
  scenario.Outstanding(absl::Milliseconds(2999));
  EXPECT_EQ(scenario.state(), ProbeState::kHealthy);
  scenario.Outstanding(absl::Seconds(3));
  EXPECT_EQ(scenario.state(), ProbeState::kStalled);
  scenario.Outstanding(absl::Minutes(10));
  EXPECT_EQ(scenario.state(), ProbeState::kStalled);
  scenario.Late(8);
  EXPECT_EQ(scenario.state(), ProbeState::kSlow);
  scenario.OnTime(20);
  EXPECT_EQ(scenario.state(), ProbeState::kHealthy);
}

TEST(ProbeStateTest, ADeviceThatAnswersNowAndThenStaysStalled) {
  Scenario scenario;
  scenario.OnTime(10);
  for (int i = 0; i < 20; ++i) {
    scenario.Late();
    scenario.Outstanding(absl::Seconds(4));
    EXPECT_EQ(scenario.state(), ProbeState::kStalled);
  }
}

TEST(ProbeStateTest, OneLateProbeIsNoNews) {
  Scenario scenario;
  scenario.OnTime(10);
  scenario.Late(2);
  EXPECT_EQ(scenario.state(), ProbeState::kHealthy);
  scenario.OnTime();
  scenario.Late(2);
  EXPECT_EQ(scenario.state(), ProbeState::kHealthy);
  scenario.Late();
  EXPECT_EQ(scenario.state(), ProbeState::kSlow);
}

TEST(ProbeStateTest, SlowNeedsManyCompletionsInTimeToEnd) {
  Scenario scenario;
  scenario.OnTime(10);
  scenario.Late(3);
  scenario.OnTime(19);
  EXPECT_EQ(scenario.state(), ProbeState::kSlow);
  scenario.OnTime();
  EXPECT_EQ(scenario.state(), ProbeState::kHealthy);
}

TEST(ProbeStateTest, AFaultHoldsForAWhileAfterTheLastError) {
  Scenario scenario;
  scenario.OnTime(10);
  scenario.Error(ProbeFault::kWriteError);
  EXPECT_EQ(scenario.state(), ProbeState::kFaulted);
  EXPECT_EQ(scenario.fault(), ProbeFault::kWriteError);
  scenario.OnTime(100);
  EXPECT_EQ(scenario.state(), ProbeState::kFaulted);
  scenario.Error(ProbeFault::kGone);
  EXPECT_EQ(scenario.fault(), ProbeFault::kGone);
  scenario.OnTime(290);
  EXPECT_EQ(scenario.state(), ProbeState::kFaulted);
  scenario.OnTime(20);
  EXPECT_EQ(scenario.state(), ProbeState::kHealthy);
  EXPECT_EQ(scenario.fault(), ProbeFault::kNone);
}

TEST(ProbeStateTest, AFaultThatStalledIsAFaultAgainAfterTheStall) {
  Scenario scenario;
  scenario.OnTime(10);
  scenario.Error();
  scenario.Outstanding(absl::Seconds(5));
  EXPECT_EQ(scenario.state(), ProbeState::kStalled);
  scenario.OnTime(3);
  EXPECT_EQ(scenario.state(), ProbeState::kFaulted);
}

TEST(ProbeStateTest, ABlockedOpenIsAStallToo) {
  Scenario scenario;
  scenario.Phase(ProbePhase::kOpening);
  EXPECT_EQ(scenario.state(), ProbeState::kUnknown);
  scenario.Outstanding(absl::Seconds(3));
  EXPECT_EQ(scenario.state(), ProbeState::kStalled);
}

TEST(ProbeStateTest, AMissingFileIsUnknownAndNeverAFault) {
  Scenario scenario;
  scenario.OnTime(10);
  scenario.Phase(ProbePhase::kUnavailable);
  EXPECT_EQ(scenario.state(), ProbeState::kUnknown);
  scenario.Pass(absl::Hours(1));
  EXPECT_EQ(scenario.state(), ProbeState::kUnknown);
}

TEST(ProbeStateTest, AFailedDeviceWhoseFileCannotBeOpenedStaysFailed) {
  Scenario scenario;
  scenario.OnTime(10);
  scenario.Error(ProbeFault::kGone);
  scenario.Phase(ProbePhase::kUnavailable);
  scenario.Pass(absl::Hours(1));
  EXPECT_EQ(scenario.state(), ProbeState::kFaulted);
}

TEST(ProbeStateTest, SilenceIsUnknown) {
  Scenario scenario;
  scenario.OnTime(10);
  scenario.Pass(absl::Seconds(29));
  EXPECT_EQ(scenario.state(), ProbeState::kHealthy);
  scenario.Pass(absl::Seconds(2));
  EXPECT_EQ(scenario.state(), ProbeState::kUnknown);
}

TEST(ProbeTransitionsTest, NoPairIsListedTwiceAndEachChangesTheState) {
  std::set<std::pair<ProbeState, ProbeSignal>> pairs;
  for (const ProbeTransition& row : ProbeTransitions()) {
    EXPECT_TRUE(pairs.insert({row.from, row.signal}).second)
        << ProbeStateName(row.from) << " " << ProbeSignalName(row.signal);
    EXPECT_NE(row.from, row.to);
  }
}

// Tries every sequence of signals up to four long, and sees which (state, signal) pairs the machine
// met.
TEST(ProbeTransitionsTest, EveryRowIsReachable) {
  constexpr int kSignals = 9;
  std::set<std::pair<ProbeState, ProbeSignal>> met;
  for (int code = 0; code < kSignals * kSignals * kSignals * kSignals; ++code) {
    Scenario scenario;
    for (int rest = code, step = 0; step < 4; ++step, rest /= kSignals) {
      scenario.Provoke(static_cast<ProbeSignal>(rest % kSignals));
    }
    met.insert(scenario.taken().begin(), scenario.taken().end());
  }
  for (const ProbeTransition& row : ProbeTransitions()) {
    EXPECT_TRUE(met.contains({row.from, row.signal}))
        << ProbeStateName(row.from) << " + " << ProbeSignalName(row.signal) << " → "
        << ProbeStateName(row.to);
  }
}

TEST(ProbeOutcomeTest, ResultsAreClassified) {
  const auto read = [](int result) { return ClassifyProbeResult(false, result, 4096); };
  const auto write = [](int result) { return ClassifyProbeResult(true, result, 4096); };
  EXPECT_TRUE(read(4096).ok);
  EXPECT_TRUE(write(4096).ok);
  EXPECT_EQ(read(-ENODATA).fault, ProbeFault::kMediaError);
  EXPECT_EQ(read(-EIO).fault, ProbeFault::kMediaError);
  EXPECT_EQ(read(512).fault, ProbeFault::kMediaError);
  EXPECT_EQ(read(0).fault, ProbeFault::kGone);
  EXPECT_EQ(read(-ENODEV).fault, ProbeFault::kGone);
  EXPECT_EQ(write(-EIO).fault, ProbeFault::kWriteError);
  EXPECT_EQ(write(-ENODATA).fault, ProbeFault::kWriteError);
  EXPECT_EQ(write(0).fault, ProbeFault::kWriteError);
  EXPECT_EQ(write(-EROFS).fault, ProbeFault::kReadOnly);
  EXPECT_EQ(write(-ENOSPC).fault, ProbeFault::kFull);
  for (const int error : {EINVAL, EOPNOTSUPP, ENOSYS}) {
    EXPECT_TRUE(read(-error).unsupported);
    EXPECT_EQ(read(-error).fault, ProbeFault::kNone);
  }
  for (const int error : {ENOMEM, EAGAIN, EINTR, ECANCELED, ENOBUFS}) {
    EXPECT_TRUE(write(-error).no_verdict) << "of the machine, not of the drive";
    EXPECT_FALSE(write(-error).ok || write(-error).unsupported);
    EXPECT_EQ(write(-error).fault, ProbeFault::kNone);
  }
}

}  // namespace
}  // namespace metal::disk

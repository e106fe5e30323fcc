#include "agent/recorder/probe_sampler.h"

namespace metal::recorder {
namespace {

void AddLatency(Entry& entry, std::string_view what, const observe::LatencySummary& latency) {
  std::array<char, 32> name;
  const auto add = [&](std::string_view suffix, int64_t value) {
    const auto end =
        std::copy(suffix.begin(), suffix.end(), std::copy(what.begin(), what.end(), name.begin()));
    entry.Add(std::string_view(name.data(), static_cast<size_t>(end - name.begin())), value);
  };
  add("_count", static_cast<int64_t>(latency.count));
  if (latency.count == 0) return;
  add("_p50_us", absl::ToInt64Microseconds(latency.p50));
  add("_p99_us", absl::ToInt64Microseconds(latency.p99));
  add("_max_us", absl::ToInt64Microseconds(latency.max));
}

}  // namespace

void PutSample(Recorder& recorder, const ProbeSample& sample) {
  Entry entry(RecordKind::kProbe);
  entry.Add("role", sample.role);
  AddLatency(entry, "read", sample.read);
  AddLatency(entry, "write", sample.write);
  entry.Add("errors", static_cast<int64_t>(sample.errors));
  entry.Add("late", static_cast<int64_t>(sample.late));
  if (sample.oldest_outstanding)
    entry.Add("oldest_us", absl::ToInt64Microseconds(*sample.oldest_outstanding));
  recorder.Put(entry);
}

ProbeSampler::ProbeSampler(std::shared_ptr<Recorder> recorder, Look look, absl::Duration interval)
    : recorder_(std::move(recorder)),
      look_(std::move(look)),
      interval_(interval),
      thread_("rec-sampler", [this] { Run(); }) {}

ProbeSampler::~ProbeSampler() {
  {
    base::MutexLock lock(mutex_);
    stop_ = true;
    changed_.NotifyAll();
  }
  thread_.Join();
}

void ProbeSampler::Run() {
  while (true) {
    {
      base::MutexLock lock(mutex_);
      if (changed_.WaitFor(mutex_, interval_,
                           [this]() ABSL_NO_THREAD_SAFETY_ANALYSIS { return stop_; })) {
        return;
      }
    }
    for (const ProbeSample& sample : look_()) PutSample(*recorder_, sample);
  }
}

}  // namespace metal::recorder

// ControlWitness: puts pg_control into the flight recorder: before and after each operation that
// moves a role or the server, before each start of the server, and when it came or went by itself.
// Threading: thread-safe. It reads the data disk on threads that may be left behind when the disk
// hangs: Before and After wait for at most 200 ms, 20 ms around a fence, a new term or the end of a
// lease, and not at all around the fence of a sick disk; Note does not wait.
#pragma once

#include <memory>
#include <string>
#include <string_view>

#include "absl/status/statusor.h"
#include "agent/disk/detached_call.h"
#include "agent/observe/event_log.h"
#include "agent/pg/control_file.h"
#include "agent/recorder/recorder.h"

namespace metal::node {

// True for the kinds of operations whose pg_control is recorded: "Promote", "Fence", …
bool MovesServer(std::string_view operation_kind);

// Puts what pg_control says, or why it cannot be read, into the recorder.
void RecordControl(recorder::Recorder& recorder, std::string_view moment, std::string_view subject,
                   const absl::StatusOr<pg::ControlFile>& control);

class ControlWitness {
 public:
  ControlWitness(std::string data_dir, std::shared_ptr<recorder::Recorder> recorder)
      : data_dir_(std::move(data_dir)), recorder_(std::move(recorder)) {}

  // Around an operation; `kind` that does not move the server: nothing.
  void Before(std::string_view kind, const std::string& operation);
  void After(std::string_view kind, const std::string& operation);
  // Events of a server that began, ended or was taken over by itself.
  void Note(const observe::Event& event);
  // At any moment.
  void Look(const std::string& moment, const std::string& subject);

 private:
  void Record(const std::string& moment, const std::string& subject, absl::Duration patience);

  const std::string data_dir_;
  const std::shared_ptr<recorder::Recorder> recorder_;
  disk::DetachedCalls reads_{2};
};

}  // namespace metal::node

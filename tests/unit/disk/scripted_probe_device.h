// A probe device with behaviour: keeps blocks in memory, and answers late, wrongly or not at all
// when told to. Threading: as ProbeDevice; the setters are thread-safe.
#pragma once

#include <cstring>
#include <deque>
#include <map>
#include <memory>
#include <utility>
#include <vector>

#include "agent/base/mutex.h"
#include "agent/disk/probe_device.h"

namespace metal::testing {

// What the test holds on to while the prober owns the device.
class DeviceScript {
 public:
  void Hang(bool on) {
    Set([&] { hang_ = on; });
  }  // transfers stay outstanding
  void HangOpen(bool on) {
    Set([&] { hang_open_ = on; });
  }  // Open does not return
  void HangSubmit(bool on) {
    Set([&] { hang_submit_ = on; });
  }  // StartRead and StartWrite do not return
  void FailReads(int32_t result) {
    Set([&] { read_result_ = result; });
  }  // 0 bytes: use kZero
  void FailWrites(int32_t result) {
    Set([&] { write_result_ = result; });
  }
  void DropWrites(bool on) {
    Set([&] { drop_writes_ = on; });
  }  // confirmed, but not stored
  void Cut(bool on) {
    Set([&] { cut_ = on; });
  }  // by another program, until it is opened again
  void CutElsewhere(bool on) {
    Set([&] { cut_elsewhere_ = on; });
  }  // cut where nothing is read
  void FailOpen(absl::Status status) {
    Set([&] { open_status_ = status; });
  }
  void OnlyBlocks(uint32_t count) {
    Set([&] { only_blocks_ = count; });
  }  // fold the file, so that blocks meet again

  static constexpr int32_t kGood = 4096;
  static constexpr int32_t kZero = INT32_MIN;

  size_t outstanding() {
    base::MutexLock lock(mutex_);
    return queue_.size();
  }
  size_t started() {
    base::MutexLock lock(mutex_);
    return started_;
  }
  size_t opens() {
    base::MutexLock lock(mutex_);
    return opens_;
  }
  // (is a write, block), in order of their start.
  std::vector<std::pair<bool, uint32_t>> transfers() {
    base::MutexLock lock(mutex_);
    return transfers_;
  }
  size_t most_outstanding() {
    base::MutexLock lock(mutex_);
    return most_outstanding_;
  }

 private:
  friend class ScriptedProbeDevice;
  struct Transfer {
    uint32_t slot;
    uint32_t block;
    bool is_write;
  };
  void Set(const std::function<void()>& change) {
    base::MutexLock lock(mutex_);
    change();
    changed_.NotifyAll();
  }

  base::Mutex mutex_;
  base::CondVar changed_;
  bool hang_ = false, hang_open_ = false, hang_submit_ = false, drop_writes_ = false, wake_ = false;
  bool cut_ = false, cut_elsewhere_ = false;
  int32_t read_result_ = kGood, write_result_ = kGood;
  uint32_t only_blocks_ = disk::kProbeFileBlocks;
  absl::Status open_status_;
  std::deque<Transfer> queue_;
  std::map<uint32_t, std::vector<std::byte>> blocks_;
  std::vector<std::pair<bool, uint32_t>> transfers_;
  size_t started_ = 0, opens_ = 0, most_outstanding_ = 0;
};

class ScriptedProbeDevice final : public disk::ProbeDevice {
 public:
  explicit ScriptedProbeDevice(std::shared_ptr<DeviceScript> script) : script_(std::move(script)) {}

  absl::Status Open(const std::function<void()>& before_step) override {
    before_step();
    base::MutexLock lock(script_->mutex_);
    ++script_->opens_;
    while (script_->hang_open_) script_->changed_.Wait(script_->mutex_);
    if (std::exchange(script_->cut_, false)) script_->blocks_.clear();
    return script_->open_status_;
  }
  std::span<std::byte> Buffer(uint32_t slot) override {
    return std::span(buffers_).subspan(size_t{slot} * disk::kProbeBlockSize, disk::kProbeBlockSize);
  }
  void StartRead(uint32_t slot, uint32_t block) override { Start({slot, block, false}); }
  void StartWrite(uint32_t slot, uint32_t block) override { Start({slot, block, true}); }

  void Wait(absl::Duration timeout, std::vector<disk::ProbeCompletion>& completions) override {
    DeviceScript& script = *script_;
    base::MutexLock lock(script.mutex_);
    script.changed_.WaitFor(script.mutex_, timeout, [&] {
      return script.wake_ || (!script.queue_.empty() && !script.hang_);
    });
    script.wake_ = false;
    while (!script.queue_.empty() && !script.hang_) {
      const DeviceScript::Transfer transfer = script.queue_.front();
      script.queue_.pop_front();
      completions.push_back({transfer.slot, Transfer(transfer)});
    }
  }
  void Wake() override {
    script_->Set([this] { script_->wake_ = true; });
  }
  bool WasCut() override {
    base::MutexLock lock(script_->mutex_);
    return script_->cut_ || script_->cut_elsewhere_;
  }
  void Close() override {}

 private:
  void Start(DeviceScript::Transfer transfer) {
    base::MutexLock lock(script_->mutex_);
    transfer.block %= script_->only_blocks_;
    ++script_->started_;
    script_->transfers_.emplace_back(transfer.is_write, transfer.block);
    script_->queue_.push_back(transfer);
    script_->most_outstanding_ = std::max(script_->most_outstanding_, script_->queue_.size());
    while (script_->hang_submit_) script_->changed_.Wait(script_->mutex_);
  }

  int32_t Transfer(const DeviceScript::Transfer& transfer) {
    const int32_t result = transfer.is_write ? script_->write_result_ : script_->read_result_;
    if (result == DeviceScript::kZero || (script_->cut_ && !transfer.is_write)) return 0;
    if (result != DeviceScript::kGood) return result;
    const std::span<std::byte> buffer = Buffer(transfer.slot);
    std::vector<std::byte>& block = script_->blocks_[transfer.block];
    block.resize(disk::kProbeBlockSize);
    if (!transfer.is_write) {
      std::memcpy(buffer.data(), block.data(), block.size());
    } else if (!script_->drop_writes_) {
      std::memcpy(block.data(), buffer.data(), block.size());
    }
    return result;
  }

  const std::shared_ptr<DeviceScript> script_;
  std::vector<std::byte> buffers_{size_t{disk::kProbeSlots} * disk::kProbeBlockSize};
};

}  // namespace metal::testing

// PackWriter: appends frames to pack files through aligned staging buffers and large O_DIRECT
// writes. The owner of the I/O engine drives it: Append copies a frame into staging, NextWrite
// hands out requests to submit, Complete takes them back. Files are preallocated, so writes do not
// extend them; Finish trims and fsyncs. Durability: a pack is durable when FinishPack returned OK
// for it and its directory was synced. Threading: one thread, except FinishPack, which may run
// elsewhere once the pack is sealed and written.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "agent/base/fd.h"
#include "agent/store/frame.h"
#include "agent/uring/buffer_pool.h"
#include "agent/uring/io_engine.h"

namespace metal::store {

struct PackFile {
  std::string path;  // absolute
  std::string name;  // "<label>/<n>.pack"
  base::UniqueFd fd;
  uint64_t size = 0;         // bytes appended, the final file size
  uint64_t allocated = 0;    // bytes preallocated
  uint32_t writes_open = 0;  // staged or in flight
  bool direct = true;
  bool sealed = false;  // no more frames
};

// Trims the file to its size, fsyncs and closes it. REQUIRES: sealed, no writes open.
absl::Status FinishPack(PackFile& pack);

class PackWriter {
 public:
  struct Options {
    std::string directory;  // <root>/<system>/packs/<label>; exists
    uint64_t system_identifier = 0;
    std::string label;
    size_t buffer_count = 8;
    size_t buffer_size = 1 << 20;  // also the size of most writes
    uint64_t pack_size_max = kPackSizeMax;
    uint64_t preallocate = 64 << 20;  // step
  };
  explicit PackWriter(Options options);

  struct Place {
    uint32_t pack = 0;    // index into packs()
    uint64_t offset = 0;  // of the frame's header
  };
  // Whether a frame of `size` stored bytes fits into free staging now. False: submit writes and
  // wait for one.
  bool CanAppend(size_t size) const;
  // Copies header and payload. RESOURCE_EXHAUSTED/NO_SPACE when the disk is full. REQUIRES:
  // CanAppend(sum of sizes).
  absl::StatusOr<Place> Append(std::span<const std::byte> header,
                               std::span<const std::byte> payload);
  // Seals the pack that is being filled, so that its tail is written. More frames would begin
  // another one.
  void Seal();

  // Next write, or null. The request is the engine's until Complete.
  uring::IoRequest* NextWrite();
  // Takes a finished write; short ones are queued again. The error of the write, naming the pack.
  absl::Status Complete(uring::IoRequest* request);
  // Whether `request` belongs to this writer.
  static bool Owns(const uring::IoRequest* request, const PackWriter& writer);

  // A sealed pack with everything written, to be given to FinishPack; null when there is none.
  PackFile* TakeWritten();
  // No write is staged, queued or in flight.
  bool idle() const { return writes_open_ == 0; }

  const std::vector<std::unique_ptr<PackFile>>& packs() const { return packs_; }
  uint64_t stored_bytes() const { return stored_bytes_; }

 private:
  struct Buffer {
    std::byte* data = nullptr;
    size_t fill = 0;
    uint64_t file_offset = 0;
    PackFile* pack = nullptr;
    bool fell_back = false;  // EINVAL once: O_DIRECT was switched off
    uint32_t stalls = 0;     // short writes that did not reach the next block
    uring::IoRequest request;
  };

  absl::Status OpenPack();
  absl::Status Preallocate(PackFile& pack, uint64_t up_to);
  void CopyIn(std::span<const std::byte> bytes);
  void QueueCurrent();

  const Options options_;
  uring::AlignedBuffer memory_;
  std::vector<Buffer> buffers_;
  std::vector<Buffer*> free_;
  std::vector<Buffer*> queued_;    // to be submitted, oldest first
  Buffer* current_ = nullptr;      // being filled
  PackFile* pack_ = nullptr;       // being filled; null: none is open
  std::vector<PackFile*> sealed_;  // not yet taken
  std::vector<std::unique_ptr<PackFile>> packs_;
  uint32_t writes_open_ = 0;
  uint64_t stored_bytes_ = 0;
};

}  // namespace metal::store

// FrameJob: one frame on its way from files to a pack: filled by reads, then checked, hashed and
// encoded by a codec thread. A frame holds 1 MiB of a large file, or several small files at 4 KiB
// steps, so that O_DIRECT reads land in place. Threading: owned by the ring thread; between Submit
// and TakeFinished by one codec thread.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "agent/backup/file_list.h"
#include "agent/backup/manifest.h"
#include "agent/backup/page_recheck.h"
#include "agent/backup/worker_pool.h"
#include "agent/base/fd.h"
#include "agent/store/frame.h"
#include "agent/stream/codec.h"
#include "agent/stream/page_checksum.h"
#include "agent/uring/buffer_pool.h"
#include "agent/uring/io_engine.h"

namespace metal::backup {

// A file while it is copied. Belongs to the ring thread; codec threads read path, direct,
// check_pages and first_block.
struct SourceFile {
  FileEntry entry;  // size: as planned at open, later what was there
  base::UniqueFd fd;
  bool direct = false;
  bool check_pages = false;
  bool all_issued = false;  // every part has its frame
  bool shrunk = false;      // truncated while it was read
  uint32_t page_size = 0;   // relation files are cut to whole pages; 0: not a relation
  base::BlockNumber first_block = 0;
  uint64_t issued = 0;  // bytes that have their frame
  uint32_t reads_open = 0;
  uint32_t frames_open = 0;
  std::vector<Extent> extents;  // by order in the file
  std::vector<uint32_t> crcs;   // of each extent
};

// What one frame holds of one file.
struct FramePiece {
  SourceFile* file = nullptr;
  uint64_t file_offset = 0;
  uint32_t frame_offset = 0;
  uint32_t wanted = 0;  // planned length
  uint32_t got = 0;     // length that was there
  uint32_t crc32c = 0;
  uint32_t extent = 0;  // index in file->extents
  // Pages whose checksum does not match and that WAL replay gives: they were being written.
  std::vector<base::BlockNumber> unsettled;
};

// Of the piece's first page, in its relation fork.
base::BlockNumber FirstBlock(const FramePiece& piece);

class FrameJob;
struct FrameRead {
  uring::IoRequest request;
  FrameJob* job = nullptr;
  uint32_t piece = 0;
  bool fell_back = false;  // EINVAL once: O_DIRECT was switched off
  uint32_t stalls = 0;     // short reads that did not reach the next block
};

// What each codec thread keeps to itself.
struct CodecState {
  std::unique_ptr<stream::Encoder> encoder;
  uring::AlignedBuffer page{stream::kPageSize};
  std::vector<base::BlockNumber> bad_blocks;
};

class FrameJob final : public WorkItem {
 public:
  static constexpr size_t kPiecesMax = 128;
  static constexpr size_t kReadsMax = kPiecesMax + 2;

  FrameJob(std::span<std::byte> raw, std::span<std::byte> encoded, std::vector<CodecState>& states,
           PageRechecker* rechecker);

  void Reset();
  void Run(size_t worker) override;

  std::span<const std::byte> header() const { return header_; }
  std::span<const std::byte> payload() const { return payload_; }
  size_t stored_size() const { return header_.size() + payload_.size(); }

  // Filled by the ring thread.
  const std::span<std::byte> raw;
  std::vector<FramePiece> pieces;
  std::vector<FrameRead> reads;  // never grows past kReadsMax: requests keep their address
  uint32_t reads_open = 0;
  bool filled = false;  // no more pieces will come
  uint32_t fill = 0;    // bytes of `raw` that pieces take

  // Results of Run.
  absl::Status status;
  uint32_t raw_length = 0;  // 0: nothing was there, no frame
  std::vector<CorruptPage> corrupt_pages;
  uint32_t pages_in_window = 0;  // bad pages that WAL replay replaces

 private:
  absl::Status CheckPiece(FramePiece& piece, CodecState& state);
  // The pages at [from, from + length) of the piece.
  absl::Status CheckPages(FramePiece& piece, uint32_t from, uint32_t length, CodecState& state);
  absl::Status Encode(CodecState& state);

  const std::span<std::byte> encoded_;
  std::vector<CodecState>& states_;
  PageRechecker* const rechecker_;
  std::array<std::byte, store::kFrameHeaderSize> header_;
  std::span<const std::byte> payload_;
};

}  // namespace metal::backup

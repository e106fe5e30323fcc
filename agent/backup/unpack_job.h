// UnpackJob: one frame on its way from a pack to files: read, then decoded and checked by a codec
// thread, then written. Small files that lie whole in the frame are written by the codec thread
// itself; parts of large files by the ring thread. Threading: owned by the ring thread; between
// Submit and TakeFinished by one codec thread.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "agent/backup/file_list.h"
#include "agent/backup/worker_pool.h"
#include "agent/base/fd.h"
#include "agent/stream/codec.h"
#include "agent/uring/io_engine.h"

namespace metal::backup {

// A file that is put together from extents. Belongs to the ring thread; codec threads read `entry`,
// `small` and `capture`.
struct TargetFile {
  FileEntry entry;
  base::UniqueFd fd;  // large files of a restore
  bool direct = false;
  bool padded = false;   // a write went past the end: truncate
  bool small = false;    // lies whole in one frame, below kBundleBelow
  bool capture = false;  // kept in memory instead of written
  bool damaged = false;
  bool all_issued = false;  // no more extents will come
  uint32_t pieces_open = 0;
  std::vector<uint32_t> crcs, lengths;  // of the extents, in order
};

class UnpackJob;
struct UnpackPiece {
  TargetFile* file = nullptr;
  uint64_t file_offset = 0;
  uint32_t frame_offset = 0;
  uint32_t length = 0;
  uint32_t extent = 0;  // index in file->crcs
  uint32_t crc32c = 0;
  UnpackJob* job = nullptr;
  bool fell_back = false;  // EINVAL once: O_DIRECT was switched off
  uint32_t stalls = 0;     // short writes that did not reach the next block
  uring::IoRequest write;
};

// A pack that frames are read from; closed when the last frame of it was read.
struct OpenPack {
  std::string path;
  base::UniqueFd fd;
};

struct UnpackRead {
  uring::IoRequest request;
  UnpackJob* job = nullptr;
  bool fell_back = false;
  uint32_t stalls = 0;
};

class UnpackJob final : public WorkItem {
 public:
  static constexpr size_t kPiecesMax = 128;
  static constexpr size_t kReadsMax = 4;

  // `target_directory` is where small files go, −1: nothing is written.
  UnpackJob(std::span<std::byte> raw, std::span<std::byte> encoded,
            std::vector<std::unique_ptr<stream::Decoder>>& decoders, int target_directory);

  void Reset();
  void Run(size_t worker) override;

  const std::span<std::byte> raw, encoded;
  Extent frame;  // pack, offsets and lengths count
  std::shared_ptr<OpenPack> pack;
  std::vector<UnpackPiece> pieces;  // never grows past kPiecesMax: requests keep their address
  std::array<UnpackRead, kReadsMax> reads;
  uint32_t reads_open = 0;
  uint32_t writes_open = 0;
  uint32_t skip = 0;      // bytes before the frame in `encoded`
  uint32_t read_end = 0;  // bytes of `encoded` that the pack has

  absl::Status status;        // of the decoding
  absl::Status write_status;  // of small files

 private:
  absl::Status Decode(stream::Decoder& decoder);

  std::vector<std::unique_ptr<stream::Decoder>>& decoders_;
  const int target_directory_;
};

}  // namespace metal::backup

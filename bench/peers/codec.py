"""The codecs' own speed: the same libraries that Metal links, level 1, independent 1 MiB frames, every core at once."""

import ctypes
import multiprocessing
import os
import time

FRAME_BYTES = 1 << 20  # as in Metal's repository
SIDE_SECONDS = 1.5


class Zstd:
    def __init__(self):
        self._library = library = ctypes.CDLL("libzstd.so.1")
        for function in ("ZSTD_createCCtx", "ZSTD_createDCtx"):
            getattr(library, function).restype = ctypes.c_void_p
        for function in ("ZSTD_compressBound", "ZSTD_compressCCtx", "ZSTD_decompressDCtx"):
            getattr(library, function).restype = ctypes.c_size_t
        self._compressor = ctypes.c_void_p(library.ZSTD_createCCtx())
        self._decompressor = ctypes.c_void_p(library.ZSTD_createDCtx())

    def bound(self, size):
        return self._library.ZSTD_compressBound(ctypes.c_size_t(size))

    def compress(self, target, capacity, source, size):
        return self._library.ZSTD_compressCCtx(self._compressor, target, ctypes.c_size_t(capacity), source,
                                               ctypes.c_size_t(size), 1)

    def decompress(self, target, capacity, source, size):
        return self._library.ZSTD_decompressDCtx(self._decompressor, target, ctypes.c_size_t(capacity), source,
                                                 ctypes.c_size_t(size))


class Lz4:
    def __init__(self):
        self._library = ctypes.CDLL("liblz4.so.1")

    def bound(self, size):
        return self._library.LZ4_compressBound(size)

    def compress(self, target, capacity, source, size):
        return self._library.LZ4_compress_default(source, target, size, capacity)

    def decompress(self, target, capacity, source, size):
        return self._library.LZ4_decompress_safe(source, target, size, capacity)


CODECS = {"zstd": Zstd, "lz4": Lz4}


def _timed_loop(work, frames, barrier):
    """Repeats `work` over all frames for SIDE_SECONDS, starting with the other processes; returns frames per second."""
    barrier.wait()
    started, count = time.perf_counter(), 0
    while True:
        for frame in frames:
            work(frame)
            count += 1
            elapsed = time.perf_counter() - started
            if elapsed >= SIDE_SECONDS:
                return count / elapsed


def _measure(name, sample, barrier, results):
    """One process: compression, then decompression, both while the other processes do the same."""
    codec = CODECS[name]()
    bound = codec.bound(FRAME_BYTES)
    output = ctypes.create_string_buffer(bound)
    plain = [sample[offset:offset + FRAME_BYTES] for offset in range(0, len(sample) - FRAME_BYTES + 1, FRAME_BYTES)]
    packed = []
    for frame in plain:
        size = codec.compress(output, bound, frame, FRAME_BYTES)
        packed.append(output.raw[:size])
        restored = ctypes.create_string_buffer(FRAME_BYTES)
        if codec.decompress(restored, FRAME_BYTES, packed[-1], size) != FRAME_BYTES or restored.raw != frame:
            raise RuntimeError(f"{name}: a frame did not survive")
    compress = _timed_loop(lambda frame: codec.compress(output, bound, frame, FRAME_BYTES), plain, barrier)
    decompress = _timed_loop(lambda frame: codec.decompress(output, FRAME_BYTES, frame, len(frame)), packed, barrier)
    results.put((compress * FRAME_BYTES, decompress * FRAME_BYTES))


def speed(name, sample):
    """Compression and decompression of `sample` (bytes) by all cores together: bytes per second, uncompressed."""
    context = multiprocessing.get_context("fork")
    cores = os.cpu_count()
    barrier, results = context.Barrier(cores), context.Queue()
    workers = [context.Process(target=_measure, args=(name, sample, barrier, results)) for _ in range(cores)]
    try:
        for worker in workers:
            worker.start()
        speeds = [results.get(timeout=120) for _ in workers]
        for worker in workers:
            worker.join()
    finally:
        for worker in workers:
            worker.kill()
    return sum(compress for compress, _ in speeds), sum(decompress for _, decompress in speeds)

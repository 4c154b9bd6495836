// One block of memory for everything that workers share: a sealed memfd, passed on as a file descriptor.
// It has no name, so nothing can leak, collide, or be attached to by a stranger; when the last process that
// maps it is gone, however it went, the kernel takes it back.
#pragma once

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <memory>
#include <new>
#include <stdexcept>
#include <string>
#include <system_error>
#include <utility>

#include "fastac/layout.hpp"

namespace fastac {

/// The mapping and typed access to what lies in it. Movable, not copyable. Thread-safe for reading its
/// layout; what the words in it mean and who may write them is said in grad_buffer, param_store and event_log.
class SharedRegion {
public:
    /// Makes a new region for this config. Throws std::system_error when there is not enough memory: the whole
    /// of it is allocated here, so that no worker meets a SIGBUS later.
    static SharedRegion create(const RegionConfig& config, std::uint64_t nonce) {
        const Layout layout(config);
        SharedRegion region(layout, open_memory(layout.bytes));
        region.map();
        auto* header = new (region.base_ + layout.header) RegionHeader{region_magic, layout.hash(), nonce, layout.bytes, config};
        static_cast<void>(header);
        auto& control = *new (region.base_ + layout.control) Control{};
        control.mutex.initialize();
        for (std::size_t w = 0; w < layout.workers; ++w) new (region.base_ + layout.worker_blocks + w * sizeof(WorkerBlock)) WorkerBlock{};
        for (std::size_t s = 0; s < layout.seats; ++s) new (region.base_ + layout.seat_blocks + s * sizeof(Seat)) Seat{};
        return region;
    }

    /// Maps a region that another process made. `fd` is duplicated, the caller keeps its own.
    /// Throws std::runtime_error where magic, layout, size or nonce differ.
    static SharedRegion attach(int fd, std::uint64_t nonce) {
        struct stat status {};
        if (fstat(fd, &status) != 0) throw std::system_error(errno, std::generic_category(), "attach: fstat");
        RegionHeader header{};
        // Sealed, so that nobody can cut off what we map.
        const int seals = fcntl(fd, F_GET_SEALS);
        if (seals < 0 || (seals & F_SEAL_SHRINK) == 0 || status.st_size < static_cast<off_t>(sizeof header) || pread(fd, &header, sizeof header, 0) != static_cast<ssize_t>(sizeof header) ||
            header.magic != region_magic)
            throw std::runtime_error("attach: this descriptor is no fastac region");
        const Layout layout = expect_layout(header, status.st_size);
        if (header.nonce != nonce) throw std::runtime_error("attach: the region belongs to another run");
        const int own = fcntl(fd, F_DUPFD_CLOEXEC, 0);
        if (own < 0) throw std::system_error(errno, std::generic_category(), "attach: dup");
        SharedRegion region(layout, own);
        region.map();
        return region;
    }

    SharedRegion(SharedRegion&& other) noexcept
        : layout_(other.layout_), fd_(std::exchange(other.fd_, -1)), base_(std::exchange(other.base_, nullptr)) {}
    SharedRegion& operator=(SharedRegion&&) = delete;
    ~SharedRegion() {
        if (base_ != nullptr) munmap(base_, layout_.bytes);
        if (fd_ >= 0) ::close(fd_);
    }

    [[nodiscard]] const Layout& layout() const noexcept { return layout_; }
    [[nodiscard]] int fd() const noexcept { return fd_; }
    [[nodiscard]] const RegionHeader& header() const noexcept { return at<RegionHeader>(layout_.header); }
    [[nodiscard]] const RegionConfig& config() const noexcept { return header().config; }
    [[nodiscard]] Control& control() const noexcept { return at<Control>(layout_.control); }
    [[nodiscard]] WorkerBlock& worker(std::size_t w) const noexcept { return at<WorkerBlock>(layout_.worker_blocks + w * sizeof(WorkerBlock)); }
    [[nodiscard]] Seat& seat(std::size_t s) const noexcept { return at<Seat>(layout_.seat_blocks + s * sizeof(Seat)); }
    [[nodiscard]] Atomic<std::uint32_t>& owner(std::size_t r) const noexcept {
        return at<Atomic<std::uint32_t>>(layout_.owner_words + r * sizeof(Atomic<std::uint32_t>));
    }
    [[nodiscard]] std::uint64_t& canary(std::size_t i) const noexcept { return at<std::uint64_t>(layout_.canary_words + i * sizeof(std::uint64_t)); }

    [[nodiscard]] RecordHeader& record(std::size_t r) const noexcept { return at<RecordHeader>(record_at(r)); }
    [[nodiscard]] std::uint64_t* consumed(std::size_t r) const noexcept { return &at<std::uint64_t>(record_at(r) + layout_.record_consumed); }
    [[nodiscard]] Share* shares(std::size_t r) const noexcept { return &at<Share>(record_at(r) + layout_.record_shares); }
    [[nodiscard]] OptimizerVectors<float> vectors(std::size_t r) const noexcept {
        const std::size_t first = record_at(r) + layout_.record_vectors;
        OptimizerVectors<float> v{&at<float>(first), {nullptr, nullptr}};
        for (std::size_t k = 0; k < state_vectors(config().optimizer.kind); ++k) v.state[k] = &at<float>(first + (k + 1) * layout_.vector_stride);
        return v;
    }

    [[nodiscard]] SlotHeader& slot(std::size_t w, std::uint64_t sequence) const noexcept { return at<SlotHeader>(slot_at(w, sequence)); }
    [[nodiscard]] float* slot_payload(std::size_t w, std::uint64_t sequence) const noexcept {
        return &at<float>(slot_at(w, sequence) + sizeof(SlotHeader));
    }
    /// With a trace only.
    [[nodiscard]] TraceBlock& trace_block(std::size_t r) const noexcept { return at<TraceBlock>(record_at(r) + layout_.record_trace); }
    [[nodiscard]] std::uint64_t* trace_words(std::uint64_t entry) const noexcept { return &at<std::uint64_t>(layout_.trace_blocks + entry * sizeof(TraceEntry)); }
    /// The copy, of two, in which the nth statistics of worker w are.
    [[nodiscard]] std::uint64_t* statistics(std::size_t w, std::uint64_t nth) const noexcept {
        return &at<std::uint64_t>(layout_.statistics_blocks + (w * 2 + nth % 2) * layout_.statistics_stride);
    }
    [[nodiscard]] double* log_row(std::size_t w, std::uint64_t row) const noexcept {
        return &at<double>(layout_.log_blocks + (w * layout_.log_rows + row % layout_.log_rows) * log_columns * sizeof(double));
    }

private:
    SharedRegion(const Layout& layout, int fd) noexcept : layout_(layout), fd_(fd) {}

    static Layout expect_layout(const RegionHeader& header, off_t size) {
        try {
            const Layout layout(header.config);
            if (header.layout_hash == layout.hash() && header.bytes == layout.bytes && size == static_cast<off_t>(layout.bytes)) return layout;
        } catch (const std::invalid_argument&) {  // another build's config, read with our fields
        }
        throw std::runtime_error("attach: the region was made by another build of fastac (its layout differs); use one installation in all processes");
    }

    static int open_memory(std::size_t bytes) {
        const int fd = memfd_create("fastac", MFD_CLOEXEC | MFD_ALLOW_SEALING);
        if (fd < 0) throw std::system_error(errno, std::generic_category(), "memfd_create");
        int error = EINTR;
        for (int tries = 0; error == EINTR && tries < 100; ++tries) error = posix_fallocate(fd, 0, static_cast<off_t>(bytes));
        if (error != 0) {
            ::close(fd);
            throw std::system_error(error, std::generic_category(), "cannot allocate " + std::to_string(bytes) + " bytes of shared memory");
        }
        if (fcntl(fd, F_ADD_SEALS, F_SEAL_GROW | F_SEAL_SHRINK | F_SEAL_SEAL) != 0) {
            const int why = errno;
            ::close(fd);
            throw std::system_error(why, std::generic_category(), "cannot seal the shared memory");
        }
        return fd;
    }

    void map() {
        void* p = mmap(nullptr, layout_.bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd_, 0);
        if (p == MAP_FAILED) throw std::system_error(errno, std::generic_category(), "mmap of the shared region");
        base_ = static_cast<std::byte*>(p);
    }

    template <class T>
    [[nodiscard]] T& at(std::size_t offset) const noexcept {
        return *std::launder(reinterpret_cast<T*>(base_ + offset));
    }
    [[nodiscard]] std::size_t record_at(std::size_t r) const noexcept { return layout_.record_blocks + r * layout_.record_stride; }
    [[nodiscard]] std::size_t slot_at(std::size_t w, std::uint64_t sequence) const noexcept {
        return layout_.ring_blocks + (w * layout_.slots + (sequence - 1) % layout_.slots) * layout_.slot_stride;
    }

    Layout layout_;
    int fd_;
    std::byte* base_ = nullptr;
};

}  // namespace fastac

#include "engine/formats/checkpoint.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <filesystem>
#include <nlohmann/json.hpp>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "engine/formats/gguf.h"
#include "engine/formats/packed_storage.h"
#include "engine/formats/safetensors.h"
#include "kernels/quant/registry.h"

namespace thermocline {

namespace fs = std::filesystem;

namespace {

constexpr int64_t kDropEvery = int64_t{32} << 20;  // bytes

int64_t ModifiedNs(const struct stat& info) {
  return info.st_mtim.tv_sec * int64_t{1'000'000'000} + info.st_mtim.tv_nsec;
}

}  // namespace

int64_t TensorInfo::num_elems() const {
  int64_t elems = 1;
  for (int64_t dim : shape) elems *= dim;
  return elems;
}

Checkpoint::Checkpoint(Kind kind, std::string path)
    : kind_(kind), path_(std::move(path)), config_(std::make_unique<nlohmann::json>()) {}

Checkpoint::~Checkpoint() {
  for (int fd : fds_) close(fd);
}

absl::StatusOr<std::unique_ptr<Checkpoint>> Checkpoint::Open(const std::string& path) {
  std::error_code error;
  const fs::file_status status = fs::status(path, error);
  if (error || status.type() == fs::file_type::not_found) {
    return absl::NotFoundError(absl::StrCat("model \"", path, "\" does not exist"));
  }
  if (!fs::is_directory(status)) {
    if (!absl::EndsWith(path, ".gguf")) {
      return absl::InvalidArgumentError(absl::StrCat(
          "model \"", path, "\" is neither a .gguf file nor a folder with config.json"));
    }
    return OpenGguf(path);
  }
  if (fs::exists(fs::path(path) / "config.json", error)) return OpenSafetensorsFolder(path);
  std::vector<std::string> ggufs;
  for (const fs::directory_entry& entry : fs::directory_iterator(path, error)) {
    if (entry.path().extension() == ".gguf") ggufs.push_back(entry.path().string());
  }
  std::sort(ggufs.begin(), ggufs.end());
  const bool one_model =
      ggufs.size() == 1 || (!ggufs.empty() && absl::StrContains(ggufs[0], "-00001-of-"));
  if (!one_model) {
    return absl::InvalidArgumentError(
        absl::StrCat("folder \"", path, "\" holds neither config.json nor exactly one GGUF model"));
  }
  return OpenGguf(ggufs[0]);
}

const TensorInfo* Checkpoint::Find(const std::string& name) const {
  const auto it = tensors_.find(name);
  return it == tensors_.end() ? nullptr : &it->second;
}

int64_t Checkpoint::total_bytes() const {
  int64_t bytes = 0;
  for (const auto& [name, tensor] : tensors_) bytes += tensor.bytes;
  return bytes;
}

absl::Status Checkpoint::Read(const TensorInfo& tensor, int64_t offset, int64_t bytes,
                              void* destination) const {
  if (offset < 0 || bytes < 0 || offset > tensor.bytes || bytes > tensor.bytes - offset) {
    return absl::InternalError(absl::StrCat("read outside tensor ", tensor.name));
  }
  switch (tensor.storage) {
    case Storage::kPlain:
      return ReadFile(tensor.file_idx, tensor.offset + offset, bytes, destination);
    case Storage::kMxfp4Pair:
      return ReadMxfp4Pair(*this, tensor, offset, bytes, static_cast<uint8_t*>(destination));
    case Storage::kFp8Blocks:
      return ReadFp8Blocks(*this, tensor, offset, bytes, static_cast<uint16_t*>(destination));
  }
  return absl::InternalError("unknown storage");
}

absl::StatusOr<std::pair<int, int64_t>> Checkpoint::AddFile(const std::string& file) {
  const int fd = open(file.c_str(), O_RDONLY | O_CLOEXEC);
  if (fd < 0) {
    return absl::NotFoundError(absl::StrCat("cannot open \"", file, "\": ", std::strerror(errno)));
  }
  struct stat info;
  if (fstat(fd, &info) != 0 || !S_ISREG(info.st_mode)) {
    close(fd);
    return absl::InvalidArgumentError(absl::StrCat("\"", file, "\" is not a regular file"));
  }
  files_.push_back(file);
  fds_.push_back(fd);
  stamps_.push_back({info.st_size, ModifiedNs(info)});
  return std::pair<int, int64_t>(static_cast<int>(fds_.size()) - 1, info.st_size);
}

absl::Status Checkpoint::CheckUnchanged(int file_idx) const {
  const size_t i = static_cast<size_t>(file_idx);
  struct stat info;
  if (fstat(fds_[i], &info) == 0 && info.st_size == stamps_[i].bytes &&
      ModifiedNs(info) == stamps_[i].mtime_ns) {
    return absl::OkStatus();
  }
  return absl::DataLossError(
      absl::StrCat("\"", files_[i], "\" has been written to since it was opened"));
}

void Checkpoint::DropCached() {
  drop_cached_ = true;
  for (const int fd : fds_) posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED);
}

absl::Status Checkpoint::ReadFile(int file_idx, int64_t offset, int64_t bytes,
                                  void* destination) const {
  char* out = static_cast<char*>(destination);
  const int64_t most = drop_cached_ ? kDropEvery : 1 << 30;  // bytes at once
  const int fd = fds_[static_cast<size_t>(file_idx)];
  while (bytes > 0) {
    const ssize_t got = pread(fd, out, static_cast<size_t>(std::min<int64_t>(bytes, most)), offset);
    if (got < 0 && errno == EINTR) continue;
    if (got <= 0) {
      return absl::DataLossError(absl::StrCat(
          "reading ", bytes, " bytes at ", offset, " of \"", files_[static_cast<size_t>(file_idx)],
          "\" failed: ",
          got == 0 ? "the file is shorter than when it was opened" : std::strerror(errno)));
    }
    // The whole file now and then: the kernel keeps what is cached in units larger than a read.
    if (drop_cached_ && cached_.fetch_add(got) + got >= kDropEvery) {
      cached_.store(0);
      posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED);
    }
    out += got;
    offset += got;
    bytes -= got;
  }
  return absl::OkStatus();
}

absl::StatusOr<int64_t> CheckedTensorBytes(DType dtype, const std::vector<int64_t>& shape) {
  const WeightFormat& format = GetFormat(dtype);
  if (shape.empty() || shape.size() > kMaxTensorRank) {
    return absl::InvalidArgumentError(
        absl::StrCat("rank ", shape.size(), ", but 1 to ", kMaxTensorRank, " are allowed"));
  }
  int64_t elems = 1;
  for (int64_t dim : shape) {
    if (dim < 1) return absl::InvalidArgumentError(absl::StrCat("dimension ", dim, " below 1"));
    if (__builtin_mul_overflow(elems, dim, &elems)) {
      return absl::InvalidArgumentError("the product of the dimensions overflows");
    }
  }
  if (shape.back() % format.block_elems != 0) {
    return absl::InvalidArgumentError(absl::StrCat("rows of ", shape.back(),
                                                   " weights are not whole blocks of ",
                                                   format.block_elems, " (", format.name, ")"));
  }
  int64_t bytes = 0;
  if (__builtin_mul_overflow(elems / format.block_elems, int64_t{format.block_bytes}, &bytes)) {
    return absl::InvalidArgumentError("the size in bytes overflows");
  }
  return bytes;
}

absl::Status Checkpoint::AddTensor(TensorInfo tensor, int64_t file_bytes) {
  const auto fail = [&](const auto&... what) {
    return absl::InvalidArgumentError(absl::StrCat("tensor \"", tensor.name, "\" of \"",
                                                   files_[static_cast<size_t>(tensor.file_idx)],
                                                   "\": ", what...));
  };
  absl::StatusOr<int64_t> bytes = CheckedTensorBytes(tensor.dtype, tensor.shape);
  if (!bytes.ok()) return fail(bytes.status().message());
  tensor.bytes = *bytes;
  if (tensor.storage == Storage::kPlain &&
      (tensor.offset < 0 || tensor.offset > file_bytes || *bytes > file_bytes - tensor.offset)) {
    return fail("bytes ", tensor.offset, " to ", tensor.offset, " + ", *bytes,
                " lie outside the file of ", file_bytes, " bytes");
  }
  if (static_cast<int64_t>(tensors_.size()) >= kMaxTensors) return fail("too many tensors");
  const std::string name = tensor.name;
  if (!tensors_.emplace(name, std::move(tensor)).second) {
    return absl::InvalidArgumentError(absl::StrCat("tensor \"", name, "\" is there twice"));
  }
  return absl::OkStatus();
}

absl::StatusOr<std::string> ReadWholeFile(const std::string& path, int64_t max_bytes) {
  const int fd = open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (fd < 0) {
    return absl::NotFoundError(absl::StrCat("cannot open \"", path, "\": ", std::strerror(errno)));
  }
  std::string contents;
  std::vector<char> chunk(1 << 16);
  absl::Status status;
  while (status.ok()) {
    const ssize_t got = read(fd, chunk.data(), chunk.size());
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) {
      status = absl::DataLossError(absl::StrCat("reading \"", path, "\": ", std::strerror(errno)));
    }
    if (got <= 0) break;
    contents.append(chunk.data(), static_cast<size_t>(got));
    if (static_cast<int64_t>(contents.size()) > max_bytes) {
      status = absl::InvalidArgumentError(
          absl::StrCat("\"", path, "\" is larger than ", max_bytes, " bytes"));
    }
  }
  close(fd);
  if (!status.ok()) return status;
  return contents;
}

}  // namespace thermocline

// See tdb_file.h.
#include "tdb_file.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/types.h>

#include <algorithm>
#include <cstring>
#include <ctime>
#include <map>
#include <mutex>
#include <utility>

// tdb.h uses its own names for these headers' types and needs them first
#include <tdb.h>

#include "unique_fd.h"

namespace smbpool {

namespace {

// Offset of the byte that every opener of a tdb with mutexes or CLEAR_IF_FIRST keeps locked (ACTIVE_LOCK in libtdb).
constexpr off_t kActiveLockOffset = 4;

TDB_DATA Data(Bytes bytes) noexcept {
  TDB_DATA data;
  // libtdb's type is not const; keys and values passed in are only read
  data.dptr = const_cast<unsigned char*>(bytes.data);
  data.dsize = bytes.length;
  return data;
}

struct ParseTarget {
  uint8_t* target;
  size_t capacity;
  size_t length;
};

int CopyRecord(TDB_DATA, TDB_DATA value, void* argument) {
  auto* parse = static_cast<ParseTarget*>(argument);
  parse->length = value.dsize;
  if (value.dsize != 0 && value.dsize <= parse->capacity) std::memcpy(parse->target, value.dptr, value.dsize);
  return 0;
}

int CollectRecord(tdb_context*, TDB_DATA key, TDB_DATA value, void* argument) {
  auto* out = static_cast<std::vector<TdbRecord>*>(argument);
  out->push_back(TdbRecord{{key.dptr, key.dptr + key.dsize}, {value.dptr, value.dptr + value.dsize}});
  return 0;
}

// The tdb files that this process has open, by device and inode. The one piece of state outside an environment, because
// what it guards is the process's: its fcntl locks. Opening a file a second time would not only fail but, before that,
// find the first opener's lock no obstacle, wipe the file under it (CLEAR_IF_FIRST) and drop its locks.
class OpenFiles {
 public:
  // False when the file is open already. A file that does not exist yet is not.
  bool Free(const char* path) noexcept {
    struct stat found;
    return ::stat(path, &found) != 0 || !Contains(found);
  }
  void Add(int fd) noexcept {
    struct stat found;
    if (::fstat(fd, &found) == 0) files_.emplace_back(found.st_dev, found.st_ino);
  }
  void Remove(int fd) noexcept {
    struct stat found;
    if (::fstat(fd, &found) != 0) return;
    const auto at = std::find(files_.begin(), files_.end(), std::make_pair(found.st_dev, found.st_ino));
    if (at != files_.end()) files_.erase(at);
  }
  // Held while a file is opened, closed or probed: no other thread may come between look and open.
  std::mutex& mutex() noexcept { return mutex_; }

 private:
  bool Contains(const struct stat& found) const noexcept {
    return std::find(files_.begin(), files_.end(), std::make_pair(found.st_dev, found.st_ino)) != files_.end();
  }

  std::mutex mutex_;
  std::vector<std::pair<dev_t, ino_t>> files_;
};

OpenFiles& ProcessFiles() noexcept {
  static OpenFiles files;
  return files;
}

// libtdb tries once per process, in a forked child, whether robust mutexes work, and leaves its SIGCHLD handler behind,
// which would hide the end of our own children from libuv.
bool MutexesWork() noexcept {
  struct sigaction before;
  const bool saved = sigaction(SIGCHLD, nullptr, &before) == 0;
  const bool work = tdb_runtime_check_for_robust_mutexes();
  if (saved) sigaction(SIGCHLD, &before, nullptr);
  return work;
}

}  // namespace

Status TdbFile::Open(const char* path, const TdbOptions& options, std::unique_ptr<TdbFile>* out) noexcept {
  const bool shared = (options.tdb_flags & TDB_MUTEX_LOCKING) != 0;
  const std::lock_guard<std::mutex> guard(ProcessFiles().mutex());
  if (!ProcessFiles().Free(path)) return Failed("open tdb a second time", EBUSY);
  if (shared && !MutexesWork()) return Failed("robust mutexes in shared memory", ENOTSUP);
  errno = 0;
  tdb_context* tdb = tdb_open(path, options.hash_size, options.tdb_flags, options.open_flags | O_CLOEXEC, options.mode);
  if (tdb == nullptr) return Failed("open tdb");
  ProcessFiles().Add(tdb_fd(tdb));
  out->reset(new TdbFile(tdb, shared));
  return {};
}

TdbFile::~TdbFile() { Close(); }

void TdbFile::Close() noexcept {
  if (tdb_ == nullptr) return;
  if (transaction_) tdb_transaction_cancel(tdb_);
  if (locked_) tdb_chainunlock(tdb_, Data({locked_key_.data(), locked_key_.size()}));
  transaction_ = false;
  locked_ = false;
  const std::lock_guard<std::mutex> guard(ProcessFiles().mutex());
  ProcessFiles().Remove(tdb_fd(tdb_));
  tdb_close(tdb_);
  tdb_ = nullptr;
}

int64_t TdbFile::Error() const noexcept { return kTdbErrorBase - static_cast<int64_t>(tdb_error(tdb_)); }

bool TdbFile::Allowed(Bytes key) const noexcept {
  if (!shared_) return true;
  return locked_ && key.length == locked_key_.size() &&
         (key.length == 0 || std::memcmp(key.data, locked_key_.data(), key.length) == 0);
}

int64_t TdbFile::LockNonblock(Bytes key) noexcept {
  if (tdb_ == nullptr) return kTdbClosed;
  if (locked_) return kTdbNotLocked;
  if (tdb_chainlock_nonblock(tdb_, Data(key)) != 0) {
    return tdb_error(tdb_) == TDB_ERR_LOCK ? static_cast<int64_t>(kTdbBusy) : Error();
  }
  locked_ = true;
  locked_key_.assign(key.data, key.data + key.length);
  return kTdbDone;
}

int64_t TdbFile::Unlock(Bytes key) noexcept {
  if (tdb_ == nullptr) return kTdbClosed;
  if (!locked_ || key.length != locked_key_.size() ||
      (key.length != 0 && std::memcmp(key.data, locked_key_.data(), key.length) != 0)) {
    return kTdbNotLocked;
  }
  locked_ = false;
  return tdb_chainunlock(tdb_, Data(key)) == 0 ? static_cast<int64_t>(kTdbDone) : Error();
}

int64_t TdbFile::Parse(Bytes key, uint8_t* target, size_t capacity) noexcept {
  if (tdb_ == nullptr) return kTdbClosed;
  if (!Allowed(key)) return kTdbNotLocked;
  ParseTarget parse{target, capacity, 0};
  if (tdb_parse_record(tdb_, Data(key), CopyRecord, &parse) != 0) {
    return tdb_error(tdb_) == TDB_ERR_NOEXIST ? static_cast<int64_t>(kTdbAbsent) : Error();
  }
  return static_cast<int64_t>(parse.length);
}

int64_t TdbFile::Store(Bytes key, Bytes value) noexcept {
  if (tdb_ == nullptr) return kTdbClosed;
  if (!Allowed(key)) return kTdbNotLocked;
  return tdb_store(tdb_, Data(key), Data(value), TDB_REPLACE) == 0 ? static_cast<int64_t>(kTdbDone) : Error();
}

int64_t TdbFile::Delete(Bytes key) noexcept {
  if (tdb_ == nullptr) return kTdbClosed;
  if (!Allowed(key)) return kTdbNotLocked;
  if (tdb_delete(tdb_, Data(key)) == 0) return kTdbDone;
  return tdb_error(tdb_) == TDB_ERR_NOEXIST ? static_cast<int64_t>(kTdbAbsent) : Error();
}

int TdbFile::SequenceNumber() const noexcept { return tdb_ == nullptr ? 0 : tdb_get_seqnum(tdb_); }

void TdbFile::AddFlags(int flags) noexcept {
  if (tdb_ != nullptr) tdb_add_flags(tdb_, static_cast<unsigned>(flags));
}

int TdbFile::HashSize() const noexcept { return tdb_ == nullptr ? 0 : tdb_hash_size(tdb_); }

int64_t TdbFile::TraverseChains(int chain, size_t records_max, std::vector<TdbRecord>* out) noexcept {
  if (tdb_ == nullptr) return kTdbClosed;
  // a chain that we hold ourselves would be locked twice, with DISALLOW_NESTING semantics of the mutex: refuse
  if (locked_) return kTdbNotLocked;
  const int chains = HashSize();
  do {
    if (chain >= chains) return chains;
    if (tdb_traverse_chain(tdb_, static_cast<unsigned>(chain), CollectRecord, out) < 0) return Error();
    chain++;
  } while (out->size() < records_max);
  return chain;
}

namespace {

// The file's format, stable since libtdb 1.3: everything lies behind the mutexes, whose size the header tells.
constexpr size_t kHashSizeAt = 36;
constexpr size_t kMutexBytesAt = 64;
constexpr size_t kChainsAt = 168 + 4;
constexpr size_t kRecordBytes = 24;
constexpr uint32_t kRecordMagic = 0x26011999;
// Of one chain; more is damage.
constexpr size_t kChainRecordsMax = 1000000;
// A process in the middle of a change is done long before; one that waits for us is not.
constexpr int kLockTries = 40;
constexpr long kLockPauseNanos = 50000;

uint32_t WordAt(const uint8_t* bytes, size_t at) noexcept {
  uint32_t word;
  std::memcpy(&word, bytes + at, sizeof(word));
  return word;
}

// The records of the chain that starts with the offset at `link`. False: damaged, or being changed.
bool ScanChain(const uint8_t* file, size_t bytes, size_t origin, size_t link, size_t header_bytes,
               std::vector<uint8_t>* out) noexcept {
  size_t at = WordAt(file, link);
  for (size_t count = 0; at != 0; count++) {
    at += origin;
    if (count > kChainRecordsMax || at + kRecordBytes > bytes) return false;
    const uint32_t next = WordAt(file, at);
    const size_t room = WordAt(file, at + 4);
    const size_t key = WordAt(file, at + 8);
    const size_t value = WordAt(file, at + 12);
    const bool live = WordAt(file, at + 20) == kRecordMagic;
    if (room > bytes - at - kRecordBytes || (live && key + value > room)) return false;
    if (live) {
      const uint32_t lengths[2] = {static_cast<uint32_t>(key), static_cast<uint32_t>(value)};
      const size_t start = out->size();
      out->resize(start + sizeof(lengths) + header_bytes + ((key + 3) & ~size_t{3}));
      uint8_t* to = out->data() + start;
      std::memcpy(to, lengths, sizeof(lengths));
      const uint8_t* from = file + at + kRecordBytes;
      std::memcpy(to + sizeof(lengths), from + key, std::min(value, header_bytes));
      std::memcpy(to + sizeof(lengths) + header_bytes, from, key);
    }
    at = next;
  }
  return true;
}

// All of a file that others may make larger, for reading.
class MappedFile {
 public:
  explicit MappedFile(int fd) noexcept : fd_(fd) {}
  MappedFile(const MappedFile&) = delete;
  MappedFile& operator=(const MappedFile&) = delete;
  ~MappedFile() { Unmap(); }

  // False: it is no larger than before, or cannot be mapped.
  bool MapAgain() noexcept {
    struct stat found {};
    if (::fstat(fd_, &found) != 0 || static_cast<size_t>(found.st_size) <= bytes_) return false;
    Unmap();
    const auto bytes = static_cast<size_t>(found.st_size);
    void* mapped = ::mmap(nullptr, bytes, PROT_READ, MAP_SHARED | MAP_POPULATE, fd_, 0);
    if (mapped == MAP_FAILED) return false;
    data_ = static_cast<const uint8_t*>(mapped);
    bytes_ = bytes;
    return true;
  }
  const uint8_t* data() const noexcept { return data_; }
  size_t bytes() const noexcept { return bytes_; }

 private:
  void Unmap() noexcept {
    if (data_ != nullptr) ::munmap(const_cast<uint8_t*>(data_), bytes_);
    data_ = nullptr;
    bytes_ = 0;
  }

  int fd_;
  const uint8_t* data_ = nullptr;
  size_t bytes_ = 0;
};

// Of each chain some key that belongs there, for its lock. Takes milliseconds, so it is done once for a size.
const std::vector<uint32_t>& ChainKeys(uint32_t chains) noexcept {
  static std::mutex mutex;
  static std::map<uint32_t, std::vector<uint32_t>> all;
  const std::lock_guard<std::mutex> guard(mutex);
  std::vector<uint32_t>& keys = all[chains];
  if (!keys.empty()) return keys;
  keys.assign(chains, 0);
  std::vector<bool> known(chains);
  uint32_t missing = chains;
  for (uint32_t number = 0; missing > 0; number++) {
    TDB_DATA key = Data({reinterpret_cast<const uint8_t*>(&number), sizeof(number)});
    const uint32_t chain = tdb_jenkins_hash(&key) % chains;
    if (known[chain]) continue;
    known[chain] = true;
    keys[chain] = number;
    missing--;
  }
  return keys;
}

}  // namespace

int64_t TdbFile::ScanHeaders(size_t header_bytes, std::vector<uint8_t>* out) noexcept {
  if (tdb_ == nullptr) return kTdbClosed;
  if (locked_ || !shared_) return kTdbNotLocked;
  const auto chains = static_cast<uint32_t>(HashSize());
  const std::vector<uint32_t>& keys = ChainKeys(chains);
  // never a second descriptor: closing it would drop our locks
  MappedFile file(tdb_fd(tdb_));
  if (!file.MapAgain()) return kTdbErrorBase - TDB_ERR_OOM;
  out->reserve(file.bytes() / 3);
  const size_t origin = WordAt(file.data(), kMutexBytesAt);
  const size_t heads = origin + kChainsAt;
  bool good = WordAt(file.data(), kHashSizeAt) == chains && heads + size_t{4} * chains <= file.bytes();
  for (uint32_t chain = 0; good && chain < chains; chain++) {
    const Bytes key{reinterpret_cast<const uint8_t*>(&keys[chain]), sizeof(uint32_t)};
    const size_t start = out->size();
    const bool locked = LockPatiently(key);
    do {
      out->resize(start);
      good = ScanChain(file.data(), file.bytes(), origin, heads + size_t{4} * chain, header_bytes, out);
    } while (!good && file.MapAgain());  // others may have made the file larger, and put records there
    if (locked) (void)Unlock(key);
  }
  return good ? static_cast<int64_t>(kTdbDone) : kTdbErrorBase - TDB_ERR_CORRUPT;
}

bool TdbFile::LockPatiently(Bytes key) noexcept {
  for (int tries = 0; tries < kLockTries; tries++) {
    if (LockNonblock(key) == kTdbDone) return true;
    const timespec pause{0, kLockPauseNanos};
    ::nanosleep(&pause, nullptr);
  }
  return false;
}

int64_t TdbFile::TransactionStartNonblock() noexcept {
  if (tdb_ == nullptr) return kTdbClosed;
  if (transaction_ || locked_) return kTdbNotLocked;
  if (tdb_transaction_start_nonblock(tdb_) != 0) {
    const TDB_ERROR error = tdb_error(tdb_);
    return error == TDB_ERR_NOLOCK || error == TDB_ERR_LOCK ? static_cast<int64_t>(kTdbBusy) : Error();
  }
  transaction_ = true;
  return kTdbDone;
}

int64_t TdbFile::TransactionCommit() noexcept {
  if (tdb_ == nullptr) return kTdbClosed;
  if (!transaction_) return kTdbNotLocked;
  // whatever the answer, libtdb has ended the transaction
  transaction_ = false;
  return tdb_transaction_commit(tdb_) == 0 ? static_cast<int64_t>(kTdbDone) : Error();
}

int64_t TdbFile::TransactionCancel() noexcept {
  if (tdb_ == nullptr) return kTdbClosed;
  if (!transaction_) return kTdbNotLocked;
  transaction_ = false;
  return tdb_transaction_cancel(tdb_) == 0 ? static_cast<int64_t>(kTdbDone) : Error();
}

int64_t TdbFile::Wipe() noexcept {
  if (tdb_ == nullptr) return kTdbClosed;
  // wiping takes every chain and waits for each
  if (shared_ || locked_) return kTdbNotLocked;
  return tdb_wipe_all(tdb_) == 0 ? static_cast<int64_t>(kTdbDone) : Error();
}

const char* TdbFile::ErrorText(int64_t result) noexcept {
  switch (result) {
    case kTdbAbsent: return "no such record";
    case kTdbBusy: return "locked by another process";
    case kTdbNotLocked: return "the chain of this key is not held, or another one is";
    case kTdbClosed: return "the database is closed";
    default: break;
  }
  switch (kTdbErrorBase - result) {
    case TDB_ERR_CORRUPT: return "the database is corrupt";
    case TDB_ERR_IO: return "input or output failed";
    case TDB_ERR_LOCK: return "locking failed";
    case TDB_ERR_OOM: return "out of memory";
    case TDB_ERR_EXISTS: return "the record exists";
    case TDB_ERR_NOLOCK: return "no lock";
    case TDB_ERR_LOCK_TIMEOUT: return "locking took too long";
    case TDB_ERR_NOEXIST: return "no such record";
    case TDB_ERR_EINVAL: return "invalid argument";
    case TDB_ERR_RDONLY: return "the database is open read-only";
    case TDB_ERR_NESTING: return "a transaction is open already";
    default: return "unknown error of libtdb";
  }
}

Status ProbeTdbUser(const char* path, int* pid) noexcept {
  *pid = 0;
  const std::lock_guard<std::mutex> guard(ProcessFiles().mutex());
  // closing the probe's descriptor would drop our own locks
  if (!ProcessFiles().Free(path)) return Failed("probe tdb that is open here", EBUSY);
  UniqueFd fd(::open(path, O_RDWR | O_CLOEXEC));
  if (!fd.valid()) return errno == ENOENT ? Status{} : Failed("open tdb");
  struct flock lock {};
  lock.l_type = F_WRLCK;
  lock.l_whence = SEEK_SET;
  lock.l_start = kActiveLockOffset;
  lock.l_len = 1;
  if (::fcntl(fd.get(), F_GETLK, &lock) != 0) return Failed("look for locks");
  if (lock.l_type != F_UNLCK) *pid = lock.l_pid > 0 ? lock.l_pid : -1;
  return {};
}

}  // namespace smbpool

// One open tdb. Thin over libtdb: no decision, no record layout. A tdb with mutexes is shared with smbd, which may hold
// a chain while it waits for us; such a file is only touched under a chain taken without waiting, and TdbFile refuses
// anything else (kNotLocked). All calls must come from the thread that opened the file: mutexes belong to a thread.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "status.h"

struct tdb_context;

namespace smbpool {

// Outcomes that are no errors of the system. Lengths are never negative, so parse can answer either.
enum TdbResult : int64_t {
  kTdbDone = 0,
  kTdbAbsent = -1,
  kTdbBusy = -2,
  kTdbNotLocked = -3,
  kTdbClosed = -4,
  // -100 - tdb_error(): see TdbFile::ErrorText
  kTdbErrorBase = -100,
};

struct TdbOptions {
  int hash_size = 0;
  int tdb_flags = 0;
  int open_flags = 0;
  unsigned mode = 0600;
};

struct TdbRecord {
  std::vector<uint8_t> key;
  std::vector<uint8_t> value;
};

struct Bytes {
  const uint8_t* data = nullptr;
  size_t length = 0;
};

class TdbFile {
 public:
  static Status Open(const char* path, const TdbOptions& options, std::unique_ptr<TdbFile>* out) noexcept;
  ~TdbFile();
  TdbFile(const TdbFile&) = delete;
  TdbFile& operator=(const TdbFile&) = delete;

  void Close() noexcept;
  bool closed() const noexcept { return tdb_ == nullptr; }

  // kTdbDone, or kTdbBusy when another process has the chain. At most one chain at a time.
  int64_t LockNonblock(Bytes key) noexcept;
  int64_t Unlock(Bytes key) noexcept;
  // The length of the value, or kTdbAbsent. Copies only when it fits `capacity`.
  int64_t Parse(Bytes key, uint8_t* target, size_t capacity) noexcept;
  int64_t Store(Bytes key, Bytes value) noexcept;
  int64_t Delete(Bytes key) noexcept;

  int SequenceNumber() const noexcept;
  void AddFlags(int flags) noexcept;
  int HashSize() const noexcept;

  // All records of whole chains from `chain` on, at least one chain, stopping after the chain that reaches
  // `records_max`. Answers the next chain, or HashSize() at the end, or an error.
  int64_t TraverseChains(int chain, size_t records_max, std::vector<TdbRecord>* out) noexcept;

  // Of a file with mutexes: key and first `header_bytes` of the value of each record, as {u32 length of the key, u32
  // length of the value, header (zeros behind a short value), key, padding to 4}. Each chain is read under its lock, or
  // without it when another process keeps it: that one waits for us, and changes nothing meanwhile. Others may add
  // records and enlarge the file meanwhile. Takes milliseconds.
  int64_t ScanHeaders(size_t header_bytes, std::vector<uint8_t>* out) noexcept;

  // kTdbBusy when another process is in a transaction.
  int64_t TransactionStartNonblock() noexcept;
  int64_t TransactionCommit() noexcept;
  int64_t TransactionCancel() noexcept;
  int64_t Wipe() noexcept;

  // What a result below kTdbErrorBase means.
  static const char* ErrorText(int64_t result) noexcept;

 private:
  explicit TdbFile(tdb_context* tdb, bool shared) noexcept : tdb_(tdb), shared_(shared) {}
  int64_t Error() const noexcept;
  bool Allowed(Bytes key) const noexcept;
  // False when another process keeps the chain for longer than any change takes.
  bool LockPatiently(Bytes key) noexcept;

  tdb_context* tdb_;
  // opened with mutexes: only under a chain
  bool shared_;
  bool locked_ = false;
  bool transaction_ = false;
  std::vector<uint8_t> locked_key_;
};

// The process that has the tdb at `path` open with mutexes or CLEAR_IF_FIRST, 0 when nobody has (or no such file).
// EBUSY for a file that this process has open itself.
Status ProbeTdbUser(const char* path, int* pid) noexcept;

}  // namespace smbpool

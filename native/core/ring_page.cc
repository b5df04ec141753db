// What the ring server writes into the node page: keys that are home, counters, latencies, errors. See ring_server.h.
#include "ring_server.h"

#include <algorithm>
#include <cstring>
#include <ctime>

namespace smbpool {

namespace {

uint64_t Load(const uint64_t* word) noexcept { return __atomic_load_n(word, __ATOMIC_RELAXED); }
void Store(uint64_t* word, uint64_t value) noexcept { __atomic_store_n(word, value, __ATOMIC_RELAXED); }

}  // namespace

void RingServer::HomeAdd(smbpool_home_kind kind, const void* key, size_t length) noexcept {
  uint64_t fingerprint = smbpool_fingerprint(static_cast<uint8_t>(kind), key, length);
  uint64_t* bucket = page_->home + (fingerprint % SMBPOOL_HOME_BUCKETS) * SMBPOOL_HOME_WAYS;
  uint64_t* free_entry = nullptr;
  for (uint32_t way = 0; way < SMBPOOL_HOME_WAYS; way++) {
    uint64_t there = Load(&bucket[way]);
    if (there == fingerprint) return;
    if (there == 0 && free_entry == nullptr) free_entry = &bucket[way];
  }
  Count(SMBPOOL_NODE_HOME_ADDED);
  if (free_entry == nullptr) {
    // Round robin is as good as any other choice without knowing what is used.
    free_entry = &bucket[evictions_++ % SMBPOOL_HOME_WAYS];
    Count(SMBPOOL_NODE_HOME_EVICTED);
  }
  Store(free_entry, fingerprint);
}

void RingServer::HomeRemove(smbpool_home_kind kind, const void* key, size_t length) noexcept {
  uint64_t fingerprint = smbpool_fingerprint(static_cast<uint8_t>(kind), key, length);
  uint64_t* bucket = page_->home + (fingerprint % SMBPOOL_HOME_BUCKETS) * SMBPOOL_HOME_WAYS;
  for (uint32_t way = 0; way < SMBPOOL_HOME_WAYS; way++) {
    if (Load(&bucket[way]) != fingerprint) continue;
    Store(&bucket[way], 0);
    Count(SMBPOOL_NODE_HOME_REMOVED);
  }
}

bool RingServer::HomeHas(smbpool_home_kind kind, const void* key, size_t length) const noexcept {
  return smbpool_home_has(page_->home, smbpool_fingerprint(static_cast<uint8_t>(kind), key, length)) != 0;
}

void RingServer::HomeClear() noexcept {
  for (uint32_t entry = 0; entry < SMBPOOL_HOME_ENTRIES; entry++) Store(&page_->home[entry], 0);
}

void RingServer::SetLeaseDeadline(uint64_t deadline_us) noexcept {
  __atomic_store_n(&page_->lease_deadline_us, deadline_us, __ATOMIC_RELEASE);
}

void RingServer::SetFlag(uint32_t flag, bool is_set) noexcept {
  smbpool_store_release(&page_->flags, is_set ? page_->flags | flag : page_->flags & ~flag);
}

void RingServer::Count(uint32_t counter, uint64_t by) noexcept {
  if (counter >= SMBPOOL_NODE_COUNTERS) return;
  Store(&page_->counters[counter], page_->counters[counter] + by);
}

// What clients count of fencing, into the page. A client may write anything there: it misleads people, nobody else.
void RingServer::SumUp(Client* client) noexcept {
  if (client->ring == nullptr) return;
  const uint64_t waits = Load(&client->ring->counters[SMBPOOL_CLIENT_FENCE_WAITS]);
  const uint64_t refused = Load(&client->ring->counters[SMBPOOL_CLIENT_FENCE_REFUSED]);
  if (waits > client->fence_waits) Count(SMBPOOL_NODE_FENCE_WAITS, waits - client->fence_waits);
  if (refused > client->fence_refused) Count(SMBPOOL_NODE_FENCE_REFUSED, refused - client->fence_refused);
  client->fence_waits = waits;
  client->fence_refused = refused;
}

void RingServer::Beat(const double* values, size_t count) noexcept {
  for (auto& [attachment, client] : clients_) SumUp(client.get());
  for (size_t i = 0; i < std::min<size_t>(count, SMBPOOL_NODE_COUNTERS - SMBPOOL_NODE_FREE); i++) {
    Store(&page_->counters[SMBPOOL_NODE_FREE + i], static_cast<uint64_t>(std::max(0.0, values[i])));
  }
  timespec now{};
  clock_gettime(CLOCK_MONOTONIC, &now);
  Store(&page_->heartbeat_us, static_cast<uint64_t>(now.tv_sec) * 1000000 + static_cast<uint64_t>(now.tv_nsec) / 1000);
}

void RingServer::RecordLatency(uint32_t histogram, uint64_t took_us) noexcept {
  if (histogram >= SMBPOOL_HISTOGRAMS) return;
  uint32_t bucket = took_us < 2 ? 0 : static_cast<uint32_t>(63 - __builtin_clzll(took_us));
  bucket = std::min(bucket, SMBPOOL_HISTOGRAM_BUCKETS - 1);
  uint64_t* word = &page_->histograms[histogram][bucket];
  Store(word, *word + 1);
  if (took_us > page_->longest_us[histogram]) Store(&page_->longest_us[histogram], took_us);
}

void RingServer::RecordError(uint32_t code, const char* text, uint64_t realtime_us) noexcept {
  smbpool_error* entry = nullptr;
  bool same = false;
  for (smbpool_error& there : page_->errors) {
    same = there.count != 0 && there.code == code && strncmp(there.text, text, SMBPOOL_ERROR_TEXT_BYTES) == 0;
    if (same) {
      entry = &there;
      break;
    }
    if (entry == nullptr || (entry->count != 0 && (there.count == 0 || there.last_us < entry->last_us))) entry = &there;
  }
  uint32_t sequence = entry->sequence;
  __atomic_store_n(&entry->sequence, sequence + 1, __ATOMIC_RELAXED);
  __atomic_thread_fence(__ATOMIC_SEQ_CST);
  if (!same) {
    memset(entry->text, 0, sizeof(entry->text));
    memcpy(entry->text, text, std::min(strlen(text), size_t{SMBPOOL_ERROR_TEXT_BYTES}));
    entry->code = code;
    entry->first_us = realtime_us;
    entry->count = 0;
  }
  entry->count += 1;
  entry->last_us = realtime_us;
  __atomic_store_n(&entry->sequence, sequence + 2, __ATOMIC_RELEASE);
}

}  // namespace smbpool

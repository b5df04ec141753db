/*
 * pool_client: one measured load on a pool of daemons, as JSON on standard output. Called by bench/run.ts, once per
 * daemon kind, workload and repetition, with the same arguments but the sockets.
 *
 *   pool_client WORKLOAD SECONDS SEED SOCKET...
 *
 * Forks one process per client, because each smbd is a process of its own; all measure the same stretch of time after a
 * short warm-up. The first server's socket comes first. See WORKLOADS below for what there is.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "daemon.h"
#include "samples.h"

#define SERVERS_MAX 16
#define WORKERS_MAX 256
#define CLIENTS_PER_SERVER 16
#define VALUE_BYTES 200 /* about one share mode entry of an open file */
#define WARM_UP_NS 150000000ull
#define READY_SECONDS_MAX 20

struct worker {
  struct samples samples;
  uint64_t operations;
  uint64_t calls;      /* requests for records */
  uint64_t increments; /* over the whole run, warm-up included */
  uint64_t backwards;  /* reads that were older than one before */
};

struct shared {
  volatile int ready;
  volatile uint64_t start_ns; /* 0: wait */
  struct worker workers[WORKERS_MAX];
};

struct run {
  const char *workload;
  double seconds;
  uint32_t seed;
  int servers;
  const char *sockets[SERVERS_MAX];
  struct shared *shared;
};

struct client {
  const struct run *run;
  struct worker *worker;
  int server;
  int index; /* among the clients of its server */
  uint32_t random;
  uint64_t from_ns, until_ns;
};

static uint32_t next_random(uint32_t *state) {
  /* xorshift32: enough to make keys that nobody made before */
  uint32_t x = *state;
  x ^= x << 13;
  x ^= x >> 17;
  x ^= x << 5;
  return *state = x;
}

static void pause_micros(unsigned micros) {
  const struct timespec time = {.tv_nsec = (long)micros * 1000};
  nanosleep(&time, NULL);
}

/* Everything is connected: wait until all are. */
static void wait_for_start(struct client *client) {
  struct shared *shared = client->run->shared;
  __sync_fetch_and_add(&shared->ready, 1);
  while (shared->start_ns == 0) pause_micros(200);
  client->from_ns = shared->start_ns + WARM_UP_NS;
  client->until_ns = client->from_ns + (uint64_t)(client->run->seconds * 1e9);
}

/* Counts what began in the measured stretch. Returns whether to go on. */
static int measured(struct client *client, uint64_t begin_ns, uint64_t end_ns, int sampled) {
  if (begin_ns >= client->from_ns) {
    client->worker->operations++;
    if (sampled) samples_add(&client->worker->samples, end_ns - begin_ns);
  }
  return end_ns < client->until_ns;
}

static TDB_DATA key_of(char *text, size_t size, const struct client *client, const char *name, unsigned number) {
  const int length = snprintf(text, size, "%s/%u/%u", name, client->run->seed, number);
  return (TDB_DATA){.dptr = (uint8_t *)text, .dsize = (size_t)length};
}

/* As an open or close: under the record's lock, a changed value of the same size. Returns the calls it took. */
static unsigned increment(struct client *client, struct connection *connection, struct database *database,
                          TDB_DATA key) {
  struct locked_record record;
  uint8_t value[VALUE_BYTES] = {0};
  uint64_t counter = 0;
  record_lock(connection, database, key, &record);
  if (record.value_length >= sizeof(counter)) memcpy(&counter, record.value, sizeof(counter));
  counter++;
  memcpy(value, &counter, sizeof(counter));
  record_store(database, &record, value, sizeof(value));
  record_unlock(database, &record);
  client->worker->calls += record.calls;
  client->worker->increments++;
  return record.calls;
}

static void open_one(struct client *client, int server, const char *name, struct connection *connection,
                     struct database *database) {
  connect_to(connection, client->run->sockets[server]);
  open_database(connection, name, 0, database);
}

static struct connection connections[SERVERS_MAX];
static struct database databases[SERVERS_MAX];

/* --- one client that goes from server to server: latencies without competition */

static void go_round(struct client *client, int servers, unsigned keys) {
  char text[64];
  for (int i = 0; i < servers; i++) open_one(client, i, "bench_move.tdb", &connections[i], &databases[i]);
  wait_for_start(client);
  for (unsigned step = 0;; step++) {
    const unsigned server = step % (unsigned)servers;
    /* each server is half the keys ahead of the other: when it asks, the record has long been where it is */
    const unsigned number = (step / (unsigned)servers + server * keys / (unsigned)servers) % keys;
    const TDB_DATA key = key_of(text, sizeof(text), client, keys == 1 ? "token" : "move", number);
    const uint64_t begin = now_ns();
    (void)increment(client, &connections[server], &databases[server], key);
    if (!measured(client, begin, now_ns(), 1)) return;
  }
}

static void run_move(struct client *client) { go_round(client, 2, 512); }
static void run_token(struct client *client) { go_round(client, client->run->servers, 1); }

static void run_owned(struct client *client) {
  char text[64];
  open_one(client, 0, "bench_move.tdb", &connections[0], &databases[0]);
  const TDB_DATA key = key_of(text, sizeof(text), client, "owned", 0);
  wait_for_start(client);
  for (uint64_t begin = now_ns(), end;; begin = end) {
    (void)increment(client, &connections[0], &databases[0], key);
    end = now_ns();
    if (!measured(client, begin, end, 1)) return;
  }
}

/* --- all servers want one record */

static void hot(struct client *client, const char *name, unsigned pause) {
  char text[64];
  open_one(client, client->server, "bench_hot.tdb", &connections[0], &databases[0]);
  const TDB_DATA key = key_of(text, sizeof(text), client, name, 0);
  wait_for_start(client);
  for (;;) {
    const uint64_t begin = now_ns();
    const unsigned calls = increment(client, &connections[0], &databases[0], key);
    /* without pauses nearly all increments find the record here; what counts is how long the others wait */
    if (!measured(client, begin, now_ns(), pause > 0 || calls > 0)) return;
    if (pause > 0) pause_micros(pause);
  }
}

static void run_hot(struct client *client) { hot(client, "hot", 0); }
static void run_hot_paced(struct client *client) { hot(client, "paced", 200); }

/* --- many clients, each with records of its own that its counterparts on the other servers want too */

static void run_many(struct client *client) {
  enum { KEYS = 32 };
  char text[64];
  open_one(client, client->server, "bench_many.tdb", &connections[0], &databases[0]);
  wait_for_start(client);
  const unsigned ahead = (unsigned)(client->server * KEYS / client->run->servers);
  for (unsigned step = 0;; step++) {
    const unsigned number = (unsigned)client->index * KEYS + (step + ahead) % KEYS;
    const TDB_DATA key = key_of(text, sizeof(text), client, "many", number);
    const uint64_t begin = now_ns();
    const unsigned calls = increment(client, &connections[0], &databases[0], key);
    const uint64_t end = now_ns();
    /* a client whose counterparts are stuck finds all records here: counting that would reward the stuck ones */
    if (calls == 0 && end < client->until_ns) continue;
    if (!measured(client, begin, end, 1)) return;
  }
}

/* --- records under random keys, made and deleted, as every open of a file does */

static void run_fresh(struct client *client) {
  open_one(client, 0, "smbXsrv_open_global.tdb", &connections[0], &databases[0]);
  wait_for_start(client);
  for (;;) {
    struct locked_record record;
    uint8_t value[VALUE_BYTES] = {1};
    uint32_t number = next_random(&client->random);
    const TDB_DATA key = {.dptr = (uint8_t *)&number, .dsize = sizeof(number)};
    const uint64_t begin = now_ns();
    record_lock(&connections[0], &databases[0], key, &record);
    record_store(&databases[0], &record, value, sizeof(value));
    record_unlock(&databases[0], &record);
    const uint64_t end = now_ns();
    client->worker->calls += record.calls;
    record_lock(&connections[0], &databases[0], key, &record);
    record_delete(&connections[0], &databases[0], &record);
    record_unlock(&databases[0], &record);
    if (!measured(client, begin, end, 1)) return;
  }
}

/* --- the first server writes now and then, the others read */

static void run_readers(struct client *client) {
  char text[64];
  open_one(client, client->server, "bench_read.tdb", &connections[0], &databases[0]);
  const TDB_DATA key = key_of(text, sizeof(text), client, "read", 0);
  wait_for_start(client);
  const int writes = client->server == 0;
  uint64_t newest = 0;
  for (;;) {
    const uint64_t begin = now_ns();
    if (writes) {
      (void)increment(client, &connections[0], &databases[0], key);
    } else {
      uint8_t value[VALUE_BYTES];
      unsigned calls = 0;
      uint64_t counter = 0;
      if (record_read(&connections[0], &databases[0], key, value, sizeof(value), &calls) >= sizeof(counter)) {
        memcpy(&counter, value, sizeof(counter));
      }
      client->worker->calls += calls;
      if (counter < newest) client->worker->backwards++;
      newest = counter;
    }
    if (!measured(client, begin, now_ns(), 1)) return;
    pause_micros(writes ? 2000 : 100);
  }
}

/* --- requests that no record is behind */

static void ping(struct client *client, uint32_t node) {
  connect_to(&connections[0], client->run->sockets[0]);
  wait_for_start(client);
  for (uint64_t begin = now_ns(), end;; begin = end) {
    if (control(&connections[0], node, CONTROL_PING, 0, NULL, 0, NULL, NULL) < 0) fail("ping was refused");
    end = now_ns();
    if (!measured(client, begin, end, 1)) return;
  }
}

static void run_ping_local(struct client *client) { ping(client, NODE_CURRENT); }
static void run_ping_remote(struct client *client) { ping(client, 1); }

/* --- persistent databases: each commit replaces one row and the sequence number */

static size_t put_row(uint8_t *at, const char *key, size_t key_length, uint64_t rsn, uint32_t node, const void *value,
                      size_t length) {
  const struct record_header header = {.rsn = rsn, .owner = node};
  const uint32_t words[4] = {(uint32_t)(16 + key_length + sizeof(header) + length), 0, (uint32_t)key_length,
                             (uint32_t)(sizeof(header) + length)};
  memcpy(at, words, sizeof(words));
  memcpy(at + 16, key, key_length);
  memcpy(at + 16 + key_length, &header, sizeof(header));
  memcpy(at + 16 + key_length + sizeof(header), value, length);
  return words[0];
}

static void run_commit(struct client *client) {
  static const char row[] = "row", sequence_key[] = "__db_sequence_number__";
  struct database *database = &databases[0];
  connect_to(&connections[0], client->run->sockets[0]);
  open_database(&connections[0], "bench_persistent.tdb", 1, database);
  const uint64_t question = database->id;
  const uint8_t *data;
  size_t length;
  uint64_t sequence = 0;
  if (control(&connections[0], NODE_CURRENT, CONTROL_GET_SEQUENCE, 0, &question, sizeof(question), &data, &length) ||
      length < sizeof(sequence)) {
    fail("no sequence number");
  }
  memcpy(&sequence, data, sizeof(sequence));
  wait_for_start(client);
  for (;;) {
    uint8_t request[1024], value[VALUE_BYTES] = {0};
    sequence++;
    memcpy(value, &sequence, sizeof(sequence));
    const uint32_t words[2] = {database->id, 2};
    memcpy(request, words, sizeof(words));
    size_t total = sizeof(words);
    const uint32_t node = connections[0].node;
    total += put_row(request + total, row, sizeof(row), sequence, node, value, sizeof(value));
    total += put_row(request + total, sequence_key, sizeof(sequence_key), sequence, node, &sequence, sizeof(sequence));
    const uint64_t begin = now_ns();
    if (control(&connections[0], NODE_CURRENT, CONTROL_COMMIT, database->id, request, total, NULL, NULL) != 0) {
      fail("a commit was refused");
    }
    if (!measured(client, begin, now_ns(), 1)) return;
  }
}

struct workload {
  const char *name;
  void (*run)(struct client *client);
  int per_server; /* clients of each server; 0: one client in all */
};

static const struct workload WORKLOADS[] = {
    {"owned", run_owned, 0},          {"ping-local", run_ping_local, 0}, {"ping-remote", run_ping_remote, 0},
    {"move", run_move, 0},            {"token", run_token, 0},           {"hot", run_hot, 1},
    {"hot-paced", run_hot_paced, 1},  {"many", run_many, CLIENTS_PER_SERVER}, {"fresh", run_fresh, 0},
    {"readers", run_readers, 1},      {"commit", run_commit, 0},
};

/* What the record holds in the end, seen by another client; only for the workloads on one record. */
static int final_count(const struct run *run, uint64_t *count) {
  const char *name = NULL;
  if (strcmp(run->workload, "hot") == 0) name = "hot";
  if (strcmp(run->workload, "hot-paced") == 0) name = "paced";
  if (name == NULL) return 0;
  char text[64];
  struct client client = {.run = run};
  struct locked_record record;
  open_one(&client, run->servers - 1, "bench_hot.tdb", &connections[0], &databases[0]);
  record_lock(&connections[0], &databases[0], key_of(text, sizeof(text), &client, name, 0), &record);
  memcpy(count, record.value, sizeof(*count));
  record_unlock(&databases[0], &record);
  return 1;
}

static void print_latency(const char *name, const struct samples *samples) {
  printf("\"%s\": {\"count\": %llu, \"medianMicros\": %.3f, \"p99Micros\": %.3f, \"maxMicros\": %.3f}", name,
         (unsigned long long)samples->count, (double)samples_quantile_ns(samples, 0.5) / 1e3,
         (double)samples_quantile_ns(samples, 0.99) / 1e3, (double)samples->max_ns / 1e3);
}

static void report(const struct run *run, const struct workload *workload, int workers) {
  static struct samples all, writer;
  uint64_t operations = 0, calls = 0, increments = 0, backwards = 0, least = UINT64_MAX;
  for (int i = 0; i < workers; i++) {
    const struct worker *worker = &run->shared->workers[i];
    const int is_writer = workload->run == run_readers && i == 0;
    samples_merge(is_writer ? &writer : &all, &worker->samples);
    operations += worker->operations;
    calls += worker->calls;
    increments += worker->increments;
    backwards += worker->backwards;
    if (worker->operations < least) least = worker->operations;
  }
  printf("{\"workload\": \"%s\", \"clients\": %d, \"seconds\": %.3f, \"operations\": %llu, \"calls\": %llu, ",
         workload->name, workers, run->seconds, (unsigned long long)operations, (unsigned long long)calls);
  /* the share of the client that got least; 1 when all got the same */
  const double fairness = operations == 0 ? 0 : (double)least * workers / (double)operations;
  printf("\"fairness\": %.3f, \"backwards\": %llu, ", fairness, (unsigned long long)backwards);
  uint64_t counted;
  if (final_count(run, &counted)) {
    printf("\"expected\": %llu, \"found\": %llu, ", (unsigned long long)increments, (unsigned long long)counted);
  }
  if (workload->run == run_readers) {
    print_latency("writer", &writer);
    printf(", ");
  }
  print_latency("latency", &all);
  printf("}\n");
}

static void start(const struct run *run, const struct workload *workload, int number) {
  const pid_t pid = fork();
  if (pid < 0) fail("fork: %s", strerror(errno));
  if (pid > 0) return;
  struct client client = {
      .run = run,
      .worker = &run->shared->workers[number],
      .server = number % run->servers,
      .index = number / run->servers,
      .random = run->seed * 2654435761u + (uint32_t)number + 1,
  };
  workload->run(&client);
  exit(0);
}

int main(int argc, char **argv) {
  static struct run run;
  if (argc < 5 || argc - 4 > SERVERS_MAX) fail("usage: pool_client WORKLOAD SECONDS SEED SOCKET...");
  run.workload = argv[1];
  run.seconds = atof(argv[2]);
  run.seed = (uint32_t)strtoul(argv[3], NULL, 10);
  run.servers = argc - 4;
  for (int i = 0; i < run.servers; i++) run.sockets[i] = argv[4 + i];
  const struct workload *workload = NULL;
  for (size_t i = 0; i < sizeof(WORKLOADS) / sizeof(WORKLOADS[0]); i++) {
    if (strcmp(WORKLOADS[i].name, run.workload) == 0) workload = &WORKLOADS[i];
  }
  if (workload == NULL) fail("there is no workload %s", run.workload);
  run.shared = mmap(NULL, sizeof(struct shared), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  if (run.shared == MAP_FAILED) fail("mmap: %s", strerror(errno));
  const int workers = workload->per_server == 0 ? 1 : workload->per_server * run.servers;
  if (workers > WORKERS_MAX) fail("%d clients are too many", workers);
  for (int i = 0; i < workers; i++) start(&run, workload, i);
  /* a worker that fails before the start says why itself */
  const uint64_t deadline = now_ns() + READY_SECONDS_MAX * 1000000000ull;
  while (run.shared->ready < workers) {
    int status;
    if (waitpid(-1, &status, WNOHANG) > 0) fail("a client ended before the start");
    if (now_ns() > deadline) fail("the clients were not ready in time");
    pause_micros(1000);
  }
  run.shared->start_ns = now_ns();
  int failed = 0;
  for (int i = 0; i < workers; i++) {
    int status;
    if (wait(&status) < 0 || !WIFEXITED(status) || WEXITSTATUS(status) != 0) failed = 1;
  }
  if (failed) return 1;
  report(&run, workload, workers);
  return 0;
}

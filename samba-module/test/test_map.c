/*
 * The pure mapping code, without smbd. Run by scripts/test-module.sh; also under the sanitizers.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "../map/map.h"
#include "smbpool_ring.h"

static void volume_takes_numbers_and_names(void **state) {
  uint64_t volume = 0, other = 0;
  (void)state;

  assert_true(smbpool_map_volume("7", &volume));
  assert_int_equal(volume, 7);
  assert_true(smbpool_map_volume("0x1f", &volume));
  assert_int_equal(volume, 0x1f);
  assert_true(smbpool_map_volume("18446744073709551615", &volume));
  assert_true(volume == UINT64_MAX);
  assert_true(smbpool_map_volume("projects", &volume));
  assert_true(smbpool_map_volume("projectt", &other));
  assert_true(volume != 0 && volume != other);
  /* Not a number to its end: a name. */
  assert_true(smbpool_map_volume("7th", &volume));
  assert_true(volume != 7);
  assert_true(smbpool_map_volume("99999999999999999999999", &volume));
  assert_true(volume != UINT64_MAX);
}

static void volume_refuses_nothing_and_zero(void **state) {
  uint64_t volume = 0;
  (void)state;

  assert_false(smbpool_map_volume(NULL, &volume));
  assert_false(smbpool_map_volume("", &volume));
  assert_false(smbpool_map_volume("0", &volume));
  assert_false(smbpool_map_volume("0x0", &volume));
}

static void file_id_does_not_depend_on_the_device_of_the_root(void **state) {
  struct smbpool_file_id here = smbpool_map_file_id(7, 2049, 2049, 99);
  struct smbpool_file_id there = smbpool_map_file_id(7, 64768, 64768, 99);
  struct smbpool_file_id folded = smbpool_map_file_id(7, 64768, 7, 99);
  (void)state;

  assert_memory_equal(&here, &there, sizeof(here));
  assert_memory_equal(&here, &folded, sizeof(here));
  assert_int_equal(here.volume, 7);
  assert_int_equal(here.inode, 99);
  assert_int_equal(here.snapshot, 0);
}

static void file_id_of_another_file_system_keeps_its_device(void **state) {
  struct smbpool_file_id id = smbpool_map_file_id(7, 2049, 2050, 99);
  (void)state;

  assert_int_equal(id.volume, 2050);
}

static void slice_is_known_and_leads_back(void **state) {
  struct smbpool_file_id one = {.volume = 7, .inode = 99};
  struct smbpool_file_id slice = smbpool_map_slice_id(&one, 3);
  struct smbpool_file_id other = smbpool_map_slice_id(&one, UINT32_MAX);
  struct smbpool_file_id first = smbpool_map_slice_id(&one, 0);
  struct smbpool_file_id old_content = {.volume = 7, .inode = 99, .snapshot = 3};
  struct smbpool_file_id back = smbpool_map_one_id(&slice);
  (void)state;

  assert_true(slice.snapshot == 0x736c696300000003ull);
  assert_int_equal(slice.volume, 7);
  assert_int_equal(slice.inode, 99);
  assert_true(smbpool_map_is_slice(&slice) && smbpool_map_is_slice(&other) && smbpool_map_is_slice(&first));
  assert_memory_equal(&back, &one, sizeof(one));
  back = smbpool_map_one_id(&other);
  assert_memory_equal(&back, &one, sizeof(one));
  /* Neither a folder itself nor a snapshot of the file system is one. */
  assert_false(smbpool_map_is_slice(&one));
  assert_false(smbpool_map_is_slice(&old_content));
  back = smbpool_map_one_id(&one);
  assert_memory_equal(&back, &one, sizeof(one));
  back = smbpool_map_one_id(&old_content);
  assert_memory_equal(&back, &old_content, sizeof(back));
}

/* Read, list, add, ... synchronize: all that has a name and is no DELETE, and the generic bits without it. */
#define BENIGN_ACCESS 0xe01e01ffu

static void open_that_conflicts_with_nothing_does_not_exclude(void **state) {
  (void)state;

  assert_false(smbpool_map_open_excludes(0x00000080, 7, 1, 0));
  assert_false(smbpool_map_open_excludes(0x00100081, 7, 1, 0x00204021));
  assert_false(smbpool_map_open_excludes(0x00100081, 7, 3, 0x21));
  assert_false(smbpool_map_open_excludes(0, 7, 1, 0));
  assert_false(smbpool_map_open_excludes(BENIGN_ACCESS, 7, 1, 0x00ffefff));
}

static void open_excludes_for_each_reason_alone(void **state) {
  uint32_t share, disposition;
  (void)state;

  assert_true(smbpool_map_open_excludes(BENIGN_ACCESS | 0x00010000, 7, 1, 0)); /* DELETE */
  assert_true(smbpool_map_open_excludes(0x00010000, 7, 3, 0));
  assert_true(smbpool_map_open_excludes(0x02000000, 7, 1, 0)); /* MAXIMUM_ALLOWED */
  assert_true(smbpool_map_open_excludes(0x10000000, 7, 1, 0)); /* GENERIC_ALL */
  assert_true(smbpool_map_open_excludes(0x00000080, 7, 1, 0x1000)); /* FILE_DELETE_ON_CLOSE */
  for (share = 0; share < 7; share++) assert_true(smbpool_map_open_excludes(0x00000080, share, 1, 0));
  for (disposition = 0; disposition < 8; disposition++) {
    if (disposition == 1 || disposition == 3) continue;
    assert_true(smbpool_map_open_excludes(0x00000080, 7, disposition, 0));
  }
}

static void text_is_cut_between_characters(void **state) {
  (void)state;

  assert_int_equal(smbpool_map_text_bytes(NULL, 10), 0);
  assert_int_equal(smbpool_map_text_bytes("", 10), 0);
  assert_int_equal(smbpool_map_text_bytes("abc", 3), 3);
  assert_int_equal(smbpool_map_text_bytes("abcd", 3), 3);
  /* a, e-acute (2 bytes), euro (3 bytes), a clef (4 bytes) */
  assert_int_equal(smbpool_map_text_bytes("a\xc3\xa9", 2), 1);
  assert_int_equal(smbpool_map_text_bytes("a\xc3\xa9", 3), 3);
  assert_int_equal(smbpool_map_text_bytes("\xe2\x82\xac", 2), 0);
  assert_int_equal(smbpool_map_text_bytes("ab\xf0\x9d\x84\x9e", 5), 2);
}

static void append_concatenates(void **state) {
  uint8_t buffer[8] = {0};
  uint32_t length = smbpool_map_append(buffer, 0, "ab", 2);
  (void)state;

  length = smbpool_map_append(buffer, length, NULL, 0);
  length = smbpool_map_append(buffer, length, "cde", 3);
  assert_int_equal(length, 5);
  assert_memory_equal(buffer, "abcde", 5);
}

static void texts_fit_one_message(void **state) {
  (void)state;

  assert_true(sizeof(struct smbpool_msg_open) + SMBPOOL_PATH_BYTES_MAX <= SMBPOOL_MESSAGE_BYTES_MAX);
  assert_true(sizeof(struct smbpool_msg_open_begin) + SMBPOOL_PATH_BYTES_MAX <= SMBPOOL_MESSAGE_BYTES_MAX);
  assert_true(sizeof(struct smbpool_msg_tree) + SMBPOOL_SHARE_BYTES_MAX + SMBPOOL_USER_BYTES_MAX +
                  SMBPOOL_PATH_BYTES_MAX <=
              SMBPOOL_MESSAGE_BYTES_MAX);
  assert_true(sizeof(struct smbpool_msg_hello) + 2 * SMBPOOL_NAME_BYTES_MAX <= SMBPOOL_MESSAGE_BYTES_MAX);
}

/* Every combination: what may never happen, rather than a copy of the function. */
static void plan_never_waits_in_vain(void **state) {
  unsigned int bits;
  (void)state;

  for (bits = 0; bits < 64; bits++) {
    struct smbpool_open_facts facts = {.can_wait = bits & 1,
                                       .link_up = bits & 2,
                                       .exists = bits & 4,
                                       .keys_home = bits & 8,
                                       .defer_option = bits & 16,
                                       .delay_ms = bits & 32 ? 50 : 0};
    enum smbpool_open_plan plan = smbpool_map_open_plan(&facts);

    if (!facts.can_wait) assert_true(plan == SMBPOOL_PLAN_GO || plan == SMBPOOL_PLAN_TELL);
    if (!facts.link_up) assert_true(plan == SMBPOOL_PLAN_GO || plan == SMBPOOL_PLAN_DELAY);
    if (facts.keys_home || !facts.exists || !facts.defer_option) assert_true(plan != SMBPOOL_PLAN_WAIT);
    if (facts.delay_ms == 0) assert_true(plan != SMBPOOL_PLAN_DELAY);
    if (facts.link_up && !facts.keys_home && facts.exists && facts.defer_option && facts.can_wait) {
      assert_int_equal(plan, SMBPOOL_PLAN_WAIT);
    }
    if (facts.can_wait && facts.delay_ms > 0) assert_true(plan == SMBPOOL_PLAN_WAIT || plan == SMBPOOL_PLAN_DELAY);
  }
}

/* Whatever the options and the home table say, and however much the daemon is missing. */
static void plan_never_lets_pass_who_excludes(void **state) {
  unsigned int bits;
  (void)state;

  for (bits = 0; bits < 64; bits++) {
    struct smbpool_open_facts facts = {.can_wait = bits & 1,
                                       .link_up = bits & 2,
                                       .exists = bits & 4,
                                       .keys_home = bits & 8,
                                       .defer_option = bits & 16,
                                       .delay_ms = bits & 32 ? 50 : 0,
                                       .excludes = true};
    enum smbpool_open_plan plan = smbpool_map_open_plan(&facts);

    if (!facts.link_up) {
      assert_int_equal(plan, SMBPOOL_PLAN_REFUSE);
    } else {
      assert_int_equal(plan, facts.can_wait ? SMBPOOL_PLAN_WAIT : SMBPOOL_PLAN_BLOCK);
    }
    facts.excludes = false;
    plan = smbpool_map_open_plan(&facts);
    assert_true(plan != SMBPOOL_PLAN_REFUSE && plan != SMBPOOL_PLAN_BLOCK);
  }
}

static void watch_interval_doubles_up_to_its_bound(void **state) {
  uint32_t interval = 0, turns = 0;
  (void)state;

  do {
    uint32_t next = smbpool_map_watch_interval_ms(interval);
    assert_true(next > interval && next <= 50);
    interval = next;
    turns += 1;
  } while (interval < 50);
  assert_true(turns <= 8);
  assert_int_equal(smbpool_map_watch_interval_ms(50), 50);
}

static void drained_is_granted_no_writes(void **state) {
  uint32_t lease, oplock;
  (void)state;

  for (lease = 0; lease <= 7; lease++) {
    assert_int_equal(smbpool_map_drained_lease(lease), lease & 3u);
    assert_int_equal(smbpool_map_is_caching(0x100, lease), (lease & 4u) != 0);
  }
  assert_int_equal(smbpool_map_drained_oplock(0), 0);
  assert_int_equal(smbpool_map_drained_oplock(1), 4);
  assert_int_equal(smbpool_map_drained_oplock(2), 4);
  assert_int_equal(smbpool_map_drained_oplock(3), 4);
  assert_int_equal(smbpool_map_drained_oplock(4), 4);
  /* smbd's own opens, and those with a lease, keep what they say. */
  assert_int_equal(smbpool_map_drained_oplock(3 | 8), 4 | 8);
  assert_int_equal(smbpool_map_drained_oplock(0x100), 0x100);
  for (oplock = 0; oplock <= 4; oplock++) {
    assert_int_equal(smbpool_map_is_caching(oplock, 0), oplock >= 1 && oplock <= 3);
    assert_false(smbpool_map_is_caching(smbpool_map_drained_oplock(oplock), 0));
  }
}

static void lease_is_over_from_its_deadline_on(void **state) {
  (void)state;

  assert_false(smbpool_lease_over(0, 0));
  assert_false(smbpool_lease_over(0, UINT64_MAX));
  assert_false(smbpool_lease_over(1000, 999));
  assert_true(smbpool_lease_over(1000, 1000));
  assert_true(smbpool_lease_over(1, UINT64_MAX));
  assert_false(smbpool_lease_over(UINT64_MAX, UINT64_MAX - 1));
}

static void fence_waits_once_and_then_refuses(void **state) {
  struct smbpool_fence fence = {0};
  (void)state;

  assert_int_equal(smbpool_map_fence(&fence, 0, 500, 10), SMBPOOL_FENCE_PASS);
  assert_int_equal(smbpool_map_fence(&fence, 1000, 999, 10), SMBPOOL_FENCE_PASS);
  /* First found over long after its end: the wait counts from there. */
  assert_int_equal(smbpool_map_fence(&fence, 1000, 900000, 10), SMBPOOL_FENCE_WAIT);
  assert_int_equal(smbpool_map_fence(&fence, 1000, 909999, 10), SMBPOOL_FENCE_WAIT);
  assert_int_equal(smbpool_map_fence(&fence, 1000, 910000, 10), SMBPOOL_FENCE_REFUSE);
  fence.told = true;
  /* Requests that queued up behind the first, and all later ones: at once. */
  assert_int_equal(smbpool_map_fence(&fence, 1000, 910001, 10), SMBPOOL_FENCE_REFUSE);
  assert_int_equal(smbpool_map_fence(&fence, 1000, 90000000, 10), SMBPOOL_FENCE_REFUSE);
  /* A renewal that was over before it came is none. */
  assert_int_equal(smbpool_map_fence(&fence, 90000000, 90000001, 10), SMBPOOL_FENCE_REFUSE);
  assert_true(fence.told);
}

static void fence_begins_anew_when_the_lease_was_valid_between(void **state) {
  struct smbpool_fence fence = {0};
  (void)state;

  assert_int_equal(smbpool_map_fence(&fence, 1000, 2000, 0), SMBPOOL_FENCE_REFUSE);
  fence.told = true;
  /* Seen to be valid, then over. */
  assert_int_equal(smbpool_map_fence(&fence, 5000, 3000, 10), SMBPOOL_FENCE_PASS);
  assert_int_equal(smbpool_map_fence(&fence, 5000, 5000, 10), SMBPOOL_FENCE_WAIT);
  assert_false(fence.told);
  assert_int_equal(smbpool_map_fence(&fence, 5000, 15000, 10), SMBPOOL_FENCE_REFUSE);
  /* Nobody looked while it was valid. */
  assert_int_equal(smbpool_map_fence(&fence, 15001, 20000, 10), SMBPOOL_FENCE_WAIT);
  assert_int_equal(fence.since_us, 20000);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(volume_takes_numbers_and_names),
      cmocka_unit_test(volume_refuses_nothing_and_zero),
      cmocka_unit_test(file_id_does_not_depend_on_the_device_of_the_root),
      cmocka_unit_test(file_id_of_another_file_system_keeps_its_device),
      cmocka_unit_test(slice_is_known_and_leads_back),
      cmocka_unit_test(open_that_conflicts_with_nothing_does_not_exclude),
      cmocka_unit_test(open_excludes_for_each_reason_alone),
      cmocka_unit_test(text_is_cut_between_characters),
      cmocka_unit_test(append_concatenates),
      cmocka_unit_test(texts_fit_one_message),
      cmocka_unit_test(plan_never_waits_in_vain),
      cmocka_unit_test(plan_never_lets_pass_who_excludes),
      cmocka_unit_test(watch_interval_doubles_up_to_its_bound),
      cmocka_unit_test(drained_is_granted_no_writes),
      cmocka_unit_test(lease_is_over_from_its_deadline_on),
      cmocka_unit_test(fence_waits_once_and_then_refuses),
      cmocka_unit_test(fence_begins_anew_when_the_lease_was_valid_between),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}

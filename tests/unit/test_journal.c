#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "core/base/xalloc.h"
#include "core/journal.h"

static char state_dir[64];

static void make_state_dir(void) {
    snprintf(state_dir, sizeof(state_dir), "/tmp/fleet-test-journal-XXXXXX");
    cr_assert_not_null(mkdtemp(state_dir));
}

static void remove_state_dir(void) {
    char *command = xasprintf("rm -rf %s", state_dir);
    cr_assert_eq(system(command), 0);
    free(command);
}

TestSuite(journal, .init = make_state_dir, .fini = remove_state_dir);

static void append(struct journal *journal, uint64_t seq, bool sync) {
    struct event *event = event_new(EVENT_LOG);
    event->seq = seq;
    event->ts_ms = INT64_C(1795367071123) + (int64_t)seq;
    event->run = xstrdup("r");
    event->line = xasprintf("line %llu", (unsigned long long)seq);
    struct error error = ERROR_INIT;
    cr_assert_eq(journal_append(journal, event, sync, &error), 0, "%s", error.message);
    event_free(event);
}

static struct journal *create(const char *id) {
    struct journal *journal = NULL;
    struct error error = ERROR_INIT;
    cr_assert_eq(journal_create(state_dir, id, &journal, &error), 0, "%s", error.message);
    return journal;
}

static struct journal_reader *open_run(const char *part) {
    struct journal_reader *reader = NULL;
    char *id = NULL;
    struct error error = ERROR_INIT;
    cr_assert_eq(journal_open(state_dir, part, &reader, &id, &error), 0, "%s", error.message);
    free(id);
    return reader;
}

static uint64_t next_seq(struct journal_reader *reader) {
    struct event *event = NULL;
    struct error error = ERROR_INIT;
    int got = journal_next(reader, &event, &error);
    cr_assert_geq(got, 0, "%s", error.message);
    uint64_t seq = got == 1 ? event->seq : 0;
    if (got == 1) {
        event_free(event);
    }
    return seq;
}

static char *path_of(const char *id) {
    return xasprintf("%s/runs/%s/journal.jsonl", state_dir, id);
}

static void write_raw(const char *id, const char *text) {
    char *path = path_of(id);
    FILE *file = fopen(path, "a");
    fputs(text, file);
    fclose(file);
    free(path);
}

Test(journal, what_is_appended_is_read) {
    struct journal *journal = create("a1");
    struct journal_reader *reader = open_run("a1");
    cr_assert_eq(next_seq(reader), 0);
    append(journal, 1, false);
    append(journal, 2, true);
    cr_assert_eq(next_seq(reader), 1);
    cr_assert_eq(next_seq(reader), 2);
    cr_assert_eq(next_seq(reader), 0);
    append(journal, 3, false);
    cr_assert_eq(next_seq(reader), 3);
    journal_reader_close(reader);
    journal_close(journal);
}

Test(journal, folders_are_private) {
    struct journal *journal = create("a1");
    struct stat status;
    cr_assert_eq(stat(journal_dir(journal), &status), 0);
    cr_assert_eq(status.st_mode & 0777, 0700);
    char *path = path_of("a1");
    cr_assert_eq(stat(path, &status), 0);
    cr_assert_eq(status.st_mode & 0777, 0600);
    free(path);
    journal_close(journal);
}

Test(journal, missing_state_folders_are_made_private) {
    size_t len = strlen(state_dir);
    snprintf(state_dir + len, sizeof(state_dir) - len, "/x/y");
    journal_close(create("a1"));
    struct stat status;
    cr_assert_eq(stat(state_dir, &status), 0);
    cr_assert_eq(status.st_mode & 0777, 0700);
    state_dir[len] = '\0';
}

Test(journal, is_live_while_its_process_holds_it) {
    struct journal *journal = create("a1");
    struct journal_reader *reader = open_run("a1");
    cr_assert(journal_is_live(reader));
    struct journal *second = NULL;
    struct error error = ERROR_INIT;
    cr_assert_eq(journal_reopen(state_dir, "a1", &second, &error), FLEET_ERR_LOCKED);
    cr_assert(strstr(error.message, "fleet watch a1"));
    journal_close(journal);
    cr_assert_not(journal_is_live(reader));
    cr_assert_eq(journal_reopen(state_dir, "a1", &second, &error), 0, "%s", error.message);
    cr_assert(journal_is_live(reader));
    journal_close(second);
    journal_reader_close(reader);
}

Test(journal, dies_with_its_process_and_not_with_its_children) {
    int ready[2];
    cr_assert_eq(pipe(ready), 0);
    pid_t pid = fork();
    if (pid == 0) {
        create("a1");
        /* A child that lives on must not hold the run. */
        if (fork() == 0) {
            execl("/bin/sleep", "sleep", "2", (char *)NULL);
        }
        usleep(50000);
        _exit(write(ready[1], "x", 1) == 1 ? 0 : 1);
    }
    char byte;
    cr_assert_eq(read(ready[0], &byte, 1), 1);
    waitpid(pid, NULL, 0);
    struct journal_reader *reader = open_run("a1");
    cr_assert_not(journal_is_live(reader));
    journal_reader_close(reader);
}

Test(journal, torn_last_line_is_waited_for) {
    struct journal *journal = create("a1");
    append(journal, 1, false);
    struct journal_reader *reader = open_run("a1");
    cr_assert_eq(next_seq(reader), 1);
    const char *head = "{\"v\":1,\"seq\":2,\"ts\":\"2026-11-22T17:04:31.123Z\",";
    write_raw("a1", head);
    cr_assert_eq(next_seq(reader), 0);
    cr_assert_eq(next_seq(reader), 0);
    write_raw("a1", "\"type\":\"promote\"}\n");
    cr_assert_eq(next_seq(reader), 2);
    journal_reader_close(reader);
    journal_close(journal);
}

Test(journal, torn_last_line_is_cut_when_it_goes_on) {
    struct journal *journal = create("a1");
    append(journal, 1, false);
    journal_close(journal);
    write_raw("a1", "{\"v\":1,\"seq\":2,\"ts\":\"2026-11-22T17");
    struct journal_reader *reader = open_run("a1");
    cr_assert_eq(next_seq(reader), 1);
    cr_assert_eq(next_seq(reader), 0);
    cr_assert_eq(journal_reopen(state_dir, "a1", &journal, NULL), 0);
    append(journal, 5, true);
    /* A reader that had seen the torn line finds the new one in its place. */
    cr_assert_eq(next_seq(reader), 5);
    journal_reader_close(reader);
    journal_close(journal);
}

Test(journal, journal_of_a_torn_line_only_begins_anew) {
    journal_close(create("a1"));
    char *torn = xcalloc(1, 10001);
    memset(torn, '{', 10000);
    write_raw("a1", torn);
    free(torn);
    struct journal *journal = NULL;
    cr_assert_eq(journal_reopen(state_dir, "a1", &journal, NULL), 0);
    append(journal, 9, true);
    struct journal_reader *reader = open_run("a1");
    cr_assert_eq(next_seq(reader), 9);
    journal_reader_close(reader);
    journal_close(journal);
}

Test(journal, damage_in_the_middle_is_named) {
    struct journal *journal = create("a1");
    append(journal, 1, false);
    journal_close(journal);
    write_raw("a1", "{\"v\":1,\"seq\":2,\"ts\":\"2026-11-22T17:04:31.123Z\",\"type\":\"new\"}\n");
    write_raw("a1", "garbage\n");
    struct journal_reader *reader = open_run("a1");
    cr_assert_eq(next_seq(reader), 1);
    struct event *event = NULL;
    struct error error = ERROR_INIT;
    cr_assert_eq(journal_next(reader, &event, &error), FLEET_ERR_PROTOCOL);
    cr_assert(strstr(error.message, "journal.jsonl:3:"), "%s", error.message);
    journal_reader_close(reader);
}

/* Its grants would be overlooked: a run that had changed hosts would look as if it had not begun. */
Test(journal, what_a_newer_fleet_wrote_is_not_passed_over) {
    struct journal *journal = create("a1");
    append(journal, 1, false);
    journal_close(journal);
    write_raw("a1", "{\"v\":2,\"seq\":2,\"ts\":\"2026-11-22T17:04:31.123Z\",\"type\":\"grant\"}\n");
    struct journal_reader *reader = open_run("a1");
    cr_assert_eq(next_seq(reader), 1);
    struct event *event = NULL;
    struct error error = ERROR_INIT;
    cr_assert_eq(journal_next(reader, &event, &error), FLEET_ERR_PROTOCOL);
    cr_expect_str_eq(error.reason, "journal-newer");
    cr_expect(strstr(error.message,
                     "journal.jsonl:2: a newer fleet wrote it (events of version 2") != NULL,
              "%s", error.message);
    journal_reader_close(reader);
}

/* As a sparse file: a line without an end is not gathered for ever. */
Test(journal, a_line_of_a_gigabyte_is_refused) {
    struct journal *journal = create("a1");
    append(journal, 1, false);
    char *path = xasprintf("%s/journal.jsonl", journal_dir(journal));
    cr_assert_eq(truncate(path, 1 << 30), 0);
    free(path);
    struct journal_reader *reader = open_run("a1");
    cr_assert_eq(next_seq(reader), 1);
    struct event *event = NULL;
    struct error error = ERROR_INIT;
    cr_assert_eq(journal_next(reader, &event, &error), FLEET_ERR_PROTOCOL);
    cr_expect(strstr(error.message, ":2: a line of more than 64 MB") != NULL, "%s", error.message);
    journal_reader_close(reader);
    journal_close(journal);
}

Test(journal, long_lines_and_many) {
    struct journal *journal = create("a1");
    for (uint64_t seq = 1; seq <= 5000; seq++) {
        append(journal, seq, false);
    }
    struct event *event = event_new(EVENT_LOG);
    event->seq = 5001;
    event->run = xstrdup("r");
    event->line = xcalloc(1, 1000001);
    memset(event->line, 'x', 1000000);
    cr_assert_eq(journal_append(journal, event, true, NULL), 0);
    event_free(event);
    append(journal, 5002, false);
    struct journal_reader *reader = open_run(NULL);
    for (uint64_t seq = 1; seq <= 5002; seq++) {
        cr_assert_eq(next_seq(reader), seq);
    }
    journal_reader_close(reader);
    journal_close(journal);
}

Test(journal, run_is_found_by_a_part_of_its_id) {
    static const char *const ids[] = {"20261122-170400-aaaaaa", "20261122-170500-bbbaaa",
                                      "20261122-180000-cccccc"};
    for (size_t i = 0; i < ARRAY_LEN(ids); i++) {
        journal_close(create(ids[i]));
    }
    static const struct {
        const char *part;
        const char *want; /* NULL: refused */
        const char *words;
    } rows[] = {
        {NULL, "20261122-180000-cccccc", NULL},
        {"aaaaaa", "20261122-170400-aaaaaa", NULL},
        {"1705", "20261122-170500-bbbaaa", NULL},
        {"aaa", NULL, "several runs"},
        {"zzz", NULL, "the latest is 20261122-180000-cccccc"},
        {"../../x", NULL, "no run"},
    };
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        struct journal_reader *reader = NULL;
        char *id = NULL;
        struct error error = ERROR_INIT;
        int err = journal_open(state_dir, rows[i].part, &reader, &id, &error);
        if (rows[i].want != NULL) {
            cr_assert_eq(err, 0, "%s", error.message);
            cr_assert_str_eq(id, rows[i].want);
            journal_reader_close(reader);
            free(id);
        } else {
            cr_assert_eq(err, FLEET_ERR_USAGE);
            cr_assert(strstr(error.message, rows[i].words), "%s", error.message);
        }
    }
    char **list = NULL;
    size_t count = 0;
    cr_assert_eq(journal_list(state_dir, &list, &count, NULL), 0);
    cr_assert_eq(count, 3);
    cr_assert_str_eq(list[0], ids[2]);
    for (size_t i = 0; i < count; i++) {
        free(list[i]);
    }
    free(list);
}

/* An id says the second only, and a small run is over in less. */
Test(journal, runs_of_one_second_are_listed_by_their_first_event) {
    static const char *const ids[] = {"20261122-170400-zzzzzz", "20261122-170400-aaaaaa",
                                      "20261122-170400-mmmmmm"};
    for (size_t i = 0; i < ARRAY_LEN(ids); i++) {
        struct journal *journal = create(ids[i]);
        append(journal, i + 1, false);
        journal_close(journal);
    }
    char **list = NULL;
    size_t count = 0;
    cr_assert_eq(journal_list(state_dir, &list, &count, NULL), 0);
    cr_assert_eq(count, ARRAY_LEN(ids));
    for (size_t i = 0; i < count; i++) {
        cr_assert_str_eq(list[i], ids[count - 1 - i]);
        free(list[i]);
    }
    free(list);
}

Test(journal, removed_one_is_noticed_before_anything_is_granted) {
    struct journal *journal = NULL;
    struct error error = ERROR_INIT;
    cr_assert_eq(journal_create(state_dir, "gone", &journal, &error), 0);
    cr_assert_eq(journal_check(journal, &error), 0);
    char *path = xasprintf("%s/journal.jsonl", journal_dir(journal));
    cr_assert_eq(unlink(path), 0);
    free(path);
    struct event *event = event_new(EVENT_GRANT);
    cr_assert_eq(journal_append(journal, event, false, &error), 0, "only a grant must be on disk");
    cr_assert_eq(journal_append(journal, event, true, &error), FLEET_ERR_SYSTEM);
    cr_assert_str_eq(error.reason, "journal-gone");
    cr_assert_eq(journal_check(journal, &error), FLEET_ERR_SYSTEM);
    event_free(event);
    journal_close(journal);
}

Test(journal, no_run_yet) {
    struct journal_reader *reader = NULL;
    char *id = NULL;
    struct error error = ERROR_INIT;
    cr_assert_eq(journal_open(state_dir, NULL, &reader, &id, &error), FLEET_ERR_USAGE);
    cr_assert(strstr(error.message, "no run yet"));
}

Test(journal, run_ids) {
    char id[RUN_ID_SIZE];
    char other[RUN_ID_SIZE];
    run_id_new(INT64_C(1795367040000), id);
    run_id_new(INT64_C(1795367040000), other);
    cr_assert_eq(strncmp(id, "20261122-170400-", 16), 0, "%s", id);
    cr_assert_eq(strlen(id), 22);
    cr_assert(run_id_is_valid(id));
    cr_assert_str_neq(id, other);
    cr_assert_not(run_id_is_valid(""));
    cr_assert_not(run_id_is_valid("-a"));
    cr_assert_not(run_id_is_valid("a/b"));
    cr_assert_not(run_id_is_valid(".."));
    cr_assert_not(run_id_is_valid("A"));
    cr_assert_not(run_id_is_valid("123456789012345678901234567890123"));
}

Test(journal, state_folder_follows_xdg) {
    char *path = NULL;
    setenv("HOME", "/home/u", 1);
    setenv("XDG_STATE_HOME", "/x/state", 1);
    cr_assert_eq(state_dir_default(&path, NULL), 0);
    cr_assert_str_eq(path, "/x/state/fleet");
    free(path);
    setenv("XDG_STATE_HOME", "relative", 1);
    cr_assert_eq(state_dir_default(&path, NULL), 0);
    cr_assert_str_eq(path, "/home/u/.local/state/fleet");
    free(path);
    setenv("HOME", "elsewhere", 1); /* no place to rely on: the account's own home is */
    cr_assert_eq(state_dir_default(&path, NULL), 0);
    cr_assert_eq(path[0], '/');
    free(path);
}

static void expect_create_fails(const char *dir, const char *reason, const char *words) {
    struct journal *journal = NULL;
    struct error error = ERROR_INIT;
    cr_assert_eq(journal_create(dir, "a1", &journal, &error), FLEET_ERR_SYSTEM);
    cr_assert_str_eq(error.reason, reason, "%s", error.message);
    cr_assert(strstr(error.message, words), "%s", error.message);
}

Test(journal, unwritable_folder_is_said_with_what_to_do) {
    expect_create_fails("/proc/nowhere", "system", "--state-dir");
    expect_create_fails("/dev/null/x", "system", "--state-dir");
}

/* Needs the right to mount: a tmpfs of a few pages in a mount namespace of its own. */
static bool mount_small(const char *options) {
    return unshare(CLONE_NEWNS) == 0 && mount("none", "/", NULL, MS_REC | MS_PRIVATE, NULL) == 0 &&
           mount("tmpfs", state_dir, "tmpfs", 0, options) == 0;
}

Test(journal, full_disk_stops_before_the_first_effect) {
    if (geteuid() != 0 || !mount_small("size=64k")) {
        cr_skip_test("no right to mount");
    }
    expect_create_fails(state_dir, "disk-full", "free space there");
    umount(state_dir);
}

Test(journal, disk_that_fills_up_leaves_whole_lines) {
    if (geteuid() != 0 || !mount_small("size=1m")) {
        cr_skip_test("no right to mount");
    }
    struct journal *journal = create("a1");
    struct event *event = event_new(EVENT_LOG);
    event->run = xstrdup("r");
    event->line = xcalloc(1, 3001);
    memset(event->line, 'x', 3000);
    struct error error = ERROR_INIT;
    int err = 0;
    while ((err = journal_append(journal, event, true, &error)) == 0) {
        cr_assert_lt(event->seq++, 2000);
    }
    cr_assert_eq(err, FLEET_ERR_SYSTEM);
    cr_assert_str_eq(error.reason, "disk-full");
    cr_assert(strstr(error.message, "fleet resume a1"), "%s", error.message);
    struct journal_reader *reader = open_run("a1");
    uint64_t read_back = 0;
    struct event *got = NULL;
    while (journal_next(reader, &got, &error) == 1) {
        event_free(got);
        read_back++;
    }
    cr_assert_eq(read_back, event->seq);
    /* With room again, the next line is not glued to what was cut short. */
    cr_assert_eq(mount("none", state_dir, NULL, MS_REMOUNT, "size=4m"), 0);
    append(journal, 4000, true);
    cr_assert_eq(next_seq(reader), 4000);
    event_free(event);
    journal_reader_close(reader);
    journal_close(journal);
    umount(state_dir);
}

Test(journal, fifo_is_no_journal_and_nobody_waits_for_it) {
    AUTO_FREE char *folder = xasprintf("%s/runs/f1", state_dir);
    AUTO_FREE char *path = xasprintf("%s/journal.jsonl", folder);
    journal_close(create("a1"));
    cr_assert_eq(mkdir(folder, 0700), 0);
    cr_assert_eq(mkfifo(path, 0600), 0);
    struct journal_reader *reader = open_run("f1");
    struct event *event = NULL;
    struct error error = ERROR_INIT;
    cr_assert_lt(journal_next(reader, &event, &error), 0);
    cr_assert(strstr(error.message, "can't be read"), "%s", error.message);
    journal_reader_close(reader);
}

Test(journal, empty_word_means_no_run) {
    journal_close(create("a1"));
    struct journal_reader *reader = NULL;
    char *id = NULL;
    struct error error = ERROR_INIT;
    cr_assert_eq(journal_open(state_dir, "", &reader, &id, &error), FLEET_ERR_USAGE);
    cr_assert_str_eq(error.reason, "no-run");
}

Test(journal, read_only_disk_is_said) {
    if (geteuid() != 0 || !mount_small("ro")) {
        cr_skip_test("no right to mount");
    }
    expect_create_fails(state_dir, "system", "Read-only file system");
    umount(state_dir);
}

/* Messages into a loop: in order, and never so many in one turn that the loop is away for long. */
#include <criterion/criterion.h>
#include <stdlib.h>

#include "core/base/xalloc.h"
#include "core/mailbox.h"

#define MAILS 60u

struct numbered {
    struct mail mail;
    unsigned number;
};

static uv_loop_t loop;
static struct mailbox box;
static struct numbered mails[2 * MAILS];
static unsigned posted, received;

static void post(unsigned count) {
    for (unsigned i = 0; i < count; i++, posted++) {
        mails[posted].number = posted;
        mailbox_post(&box, &mails[posted].mail);
    }
}

static void receive(struct mail *mail, void *arg) {
    const struct numbered *numbered = container_of(mail, struct numbered, mail);
    cr_assert_null(arg);
    cr_assert_eq(numbered->number, received, "order");
    received++;
    uv_sleep(1);
}

static void setup(void) {
    uv_loop_init(&loop);
    mailbox_init(&box, &loop, receive, NULL);
}

static void teardown(void) {
    mailbox_close(&box);
    uv_run(&loop, UV_RUN_DEFAULT);
    if (uv_loop_close(&loop) != 0) {
        abort(); /* an assert is not counted here */
    }
}

TestSuite(mailbox, .init = setup, .fini = teardown);

Test(mailbox, one_turn_hands_out_only_what_takes_some_milliseconds) {
    post(MAILS);
    uv_run(&loop, UV_RUN_ONCE);
    cr_assert_gt(received, 0);
    cr_assert_lt(received, MAILS);
    post(MAILS); /* behind what is left over */
    while (received < 2 * MAILS) {
        uv_run(&loop, UV_RUN_ONCE);
    }
}

Test(mailbox, what_is_left_over_can_be_had_at_once) {
    post(MAILS);
    uv_run(&loop, UV_RUN_ONCE);
    cr_assert_lt(received, MAILS);
    mailbox_drain(&box);
    cr_assert_eq(received, MAILS);
    uv_run(&loop, UV_RUN_NOWAIT); /* woken for nothing */
    cr_assert_eq(received, MAILS);
}

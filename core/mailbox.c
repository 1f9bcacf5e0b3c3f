#include "core/mailbox.h"

#include <stddef.h>

#define MAILBOX_TURN_NS (5u * 1000u * 1000u)

void mailbox_drain(struct mailbox *box) {
    uv_mutex_lock(&box->mutex);
    struct mail *mail = box->first;
    box->first = NULL;
    box->last = &box->first;
    uv_mutex_unlock(&box->mutex);
    while (mail != NULL) {
        struct mail *next = mail->next;
        box->receive(mail, box->arg);
        mail = next;
    }
}

/* What is left over goes before all that has come meanwhile. */
static void put_back(struct mailbox *box, struct mail *first, struct mail **last) {
    uv_mutex_lock(&box->mutex);
    *last = box->first;
    if (box->first == NULL) {
        box->last = last;
    }
    box->first = first;
    uv_mutex_unlock(&box->mutex);
    uv_async_send(&box->async);
}

static void on_async(uv_async_t *async) {
    struct mailbox *box = async->data;
    uint64_t until_ns = uv_hrtime() + MAILBOX_TURN_NS;
    uv_mutex_lock(&box->mutex);
    struct mail *mail = box->first;
    struct mail **last = box->last;
    box->first = NULL;
    box->last = &box->first;
    uv_mutex_unlock(&box->mutex);
    while (mail != NULL) {
        struct mail *next = mail->next;
        box->receive(mail, box->arg);
        mail = next;
        if (mail != NULL && uv_hrtime() >= until_ns) {
            put_back(box, mail, last);
            return;
        }
    }
}

void mailbox_init(struct mailbox *box, uv_loop_t *loop,
                  void (*receive)(struct mail *mail, void *arg), void *arg) {
    box->first = NULL;
    box->last = &box->first;
    box->receive = receive;
    box->arg = arg;
    uv_mutex_init(&box->mutex);
    uv_async_init(loop, &box->async, on_async);
    box->async.data = box;
}

void mailbox_post(struct mailbox *box, struct mail *mail) {
    mail->next = NULL;
    uv_mutex_lock(&box->mutex);
    *box->last = mail;
    box->last = &mail->next;
    uv_mutex_unlock(&box->mutex);
    uv_async_send(&box->async);
}

static void on_closed(uv_handle_t *handle) {
    struct mailbox *box = handle->data;
    uv_mutex_destroy(&box->mutex);
}

void mailbox_close(struct mailbox *box) {
    uv_close((uv_handle_t *)&box->async, on_closed);
}

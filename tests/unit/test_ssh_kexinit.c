/* What is read of a peer's first bytes, to say in an error what it is and what it offers. */
#include <criterion/criterion.h>
#include <string.h>

#include "transport/ssh_kexinit.h"
#include "transport/ssh_wire.h"

static struct ssh_kexinit kexinit;

static void init(void) {
    kexinit = (struct ssh_kexinit){0};
}

static void fini(void) {
    ssh_kexinit_release(&kexinit);
}
TestSuite(ssh_kexinit, .init = init, .fini = fini);

/* RFC 4253, 7.1: a packet with the ten lists. */
static void add_kexinit(struct buf *out) {
    static const char *const lists[] = {
        "curve25519-sha256",   "ssh-ed25519", "aes128-ctr", "aes256-ctr", "hmac-sha2-256",
        "umac-64@openssh.com", "none",        "none",       "",           ""};
    struct buf body = BUF_INIT;
    ssh_add_u8(&body, 4);  /* padding length */
    ssh_add_u8(&body, 20); /* SSH_MSG_KEXINIT */
    buf_add(&body, "0123456789abcdef", 16);
    for (size_t i = 0; i < sizeof(lists) / sizeof(lists[0]); i++) {
        ssh_add_text(&body, lists[i]);
    }
    buf_add(&body, "\0\0\0\0\0pad!", 9);
    ssh_add_string(out, body.data, body.len);
    buf_free(&body);
}

static void expect_lists(void) {
    cr_assert(kexinit.parsed && kexinit.done && ssh_kexinit_is_ssh(&kexinit));
    cr_expect_str_eq(kexinit.lists[SSH_KEX_METHODS], "curve25519-sha256");
    cr_expect_str_eq(kexinit.lists[SSH_KEX_MACS_BACK], "umac-64@openssh.com");
    cr_expect(ssh_kexinit_agrees(&kexinit, SSH_KEX_CIPHERS, "aes256-gcm,aes128-ctr"));
    cr_expect_not(ssh_kexinit_agrees(&kexinit, SSH_KEX_CIPHERS, "aes128,aes128-ctr2,"));
}

Test(ssh_kexinit, lists_are_read_behind_words_and_banner_whole_and_byte_by_byte) {
    struct buf bytes = BUF_INIT;
    buf_add_text(&bytes, "Mind the gap\r\nSSH-2.0-OpenSSH_9.2p1\r\n");
    add_kexinit(&bytes);
    ssh_kexinit_feed(&kexinit, bytes.data, bytes.len);
    expect_lists();
    ssh_kexinit_release(&kexinit);
    init();
    for (size_t at = 0; at < bytes.len; at++) {
        cr_assert_not(kexinit.done);
        ssh_kexinit_feed(&kexinit, bytes.data + at, 1);
    }
    expect_lists();
    buf_free(&bytes);
}

Test(ssh_kexinit, what_is_no_ssh_is_told_from_what_began_to_be) {
    static const char http[] = "HTTP/1.1 400 Bad Request\r\n";
    static const char banner[] = "SSH-2.0-dropbear";
    ssh_kexinit_feed(&kexinit, http, sizeof(http) - 1);
    cr_expect_not(ssh_kexinit_is_ssh(&kexinit));
    ssh_kexinit_feed(&kexinit, banner, sizeof(banner) - 1);
    cr_expect(ssh_kexinit_is_ssh(&kexinit) && !kexinit.parsed);
}

Test(ssh_kexinit, a_packet_that_is_too_long_or_another_message_is_given_up) {
    static const char too_long[] = "SSH-2.0-x\n\xff\xff\xff\xff";
    static const char other[] = "SSH-2.0-x\n\0\0\0\2\0\2";
    ssh_kexinit_feed(&kexinit, too_long, sizeof(too_long) - 1);
    cr_expect(kexinit.done && !kexinit.parsed);
    ssh_kexinit_release(&kexinit);
    init();
    ssh_kexinit_feed(&kexinit, other, sizeof(other) - 1);
    cr_expect(kexinit.done && !kexinit.parsed);
}

Test(ssh_kexinit, a_peer_that_never_begins_is_given_up) {
    for (size_t i = 0; i < 70000 && !kexinit.done; i++) {
        ssh_kexinit_feed(&kexinit, "\n", 1);
    }
    cr_expect(kexinit.done && !kexinit.parsed);
}

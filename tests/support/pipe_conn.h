/* A connection whose streams are processes of this machine on pipes: what sshd and a login shell do,
 * without the network. For tests of what stands on struct conn; it adds what a real carrier never
 * offers: another login shell, the pid of the last process, and a far side that reads slowly.
 */
#ifndef FLEET_TESTS_PIPE_CONN_H
#define FLEET_TESTS_PIPE_CONN_H

#include <uv.h>

#include "transport/conn.h"

struct pipe_conn {
    struct conn conn;
    uv_loop_t *loop;
    const char *login_shell; /* run as `login_shell -c command` */
    int last_pid;
    unsigned exec_count;
    /* Bytes a second that each stream hands on; 0: as fast as it goes. */
    size_t write_rate;
    bool mute;    /* take writes and hand nothing on */
    size_t piece; /* bytes that a callback gets at a time; 0: as they come */
    bool deaf;    /* keep what the processes print until this is false again */
};

/* Ready at once. Closed with conn_close when its streams are gone; the memory is the caller's. */
void pipe_conn_init(struct pipe_conn *self, uv_loop_t *loop, const char *login_shell);

#endif

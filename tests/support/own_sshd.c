#include "tests/support/own_sshd.h"

#include <arpa/inet.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#include "core/base/xalloc.h"
#include "transport/keyring.h"

static uint16_t free_port(void) {
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t size = sizeof(address);
    if (bind(fd, (struct sockaddr *)&address, size) != 0 ||
        getsockname(fd, (struct sockaddr *)&address, &size) != 0) {
        perror("bind");
        exit(1);
    }
    close(fd);
    return ntohs(address.sin_port);
}

static void run(const char *command) {
    if (system(command) != 0) {
        fprintf(stderr, "failed: %s\n", command);
        exit(1);
    }
}

static void prepare_spec(struct own_sshd *sshd) {
    struct error error = ERROR_INIT;
    const char *key = sshd->key;
    sshd->keyring = keyring_new(NULL);
    keyring_prepare(sshd->keyring, &key, 1, NULL, NULL, &error);
    sshd->address = (struct conn_address){"127.0.0.1", sshd->port};
    sshd->spec = (struct conn_spec){.name = "bench",
                                    .addresses = &sshd->address,
                                    .address_count = 1,
                                    .user = "root",
                                    .identity_files = (const char *const *)&sshd->key,
                                    .identity_count = 1,
                                    .host_key_check = HOST_KEY_OFF,
                                    .connect_timeout_ms = 20000};
}

void own_sshd_start(struct own_sshd *sshd, char *folder, const char *ciphers) {
    if (geteuid() != 0) {
        fprintf(stderr, "this starts an sshd: run it as root\n");
        exit(1);
    }
    *sshd = (struct own_sshd){.folder = folder, .port = free_port()};
    sshd->key = xasprintf("%s/sshd/id", folder);
    AUTO_FREE char *command = xasprintf(
        "mkdir -p /run/sshd && mkdir %s/sshd && cd %s/sshd && "
        "ssh-keygen -q -t ed25519 -N '' -f host && ssh-keygen -q -t ed25519 -N '' -f id && "
        "/usr/sbin/sshd -f /dev/null -p %u -o ListenAddress=127.0.0.1 -h $PWD/host "
        "-o AuthorizedKeysFile=$PWD/id.pub -o StrictModes=no -o PermitRootLogin=yes "
        "-o PidFile=$PWD/pid -o SetEnv=HOME=%s -o Ciphers=%s && "
        "for i in $(seq 600); do [ -s pid ] && exit 0; sleep 0.05; done; exit 1",
        folder, folder, (unsigned)sshd->port, folder, ciphers);
    run(command);
    prepare_spec(sshd);
}

void own_sshd_stop(struct own_sshd *sshd) {
    AUTO_FREE char *command =
        xasprintf("kill $(cat %s/sshd/pid) && rm -rf %s/sshd", sshd->folder, sshd->folder);
    run(command);
    keyring_free(sshd->keyring);
    free(sshd->key);
}

int own_sshd_client(const struct own_sshd *sshd, const char *from, const char *options,
                    const char *command) {
    AUTO_FREE char *words =
        xasprintf("%s ssh -F none -q -o IdentityFile=%s -o StrictHostKeyChecking=no "
                  "-o UserKnownHostsFile=/dev/null %s -p %u root@127.0.0.1 '%s'",
                  from, sshd->key, options, (unsigned)sshd->port, command);
    return system(words);
}

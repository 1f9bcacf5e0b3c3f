/* Who this process is: what locks and records on hosts say of it. */
#ifndef FLEET_CORE_WHO_H
#define FLEET_CORE_WHO_H

/* "user@machine pid 123", cleaned. The caller frees. */
char *who_am_i(void);

#endif

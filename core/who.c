#include "core/who.h"

#include <pwd.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "core/base/text.h"
#include "core/base/xalloc.h"

char *who_am_i(void) {
    char machine[256] = "";
    const struct passwd *user = getpwuid(getuid());
    gethostname(machine, sizeof(machine) - 1);
    AUTO_FREE char *raw =
        xasprintf("%s@%s pid %d", user != NULL ? user->pw_name : "?", machine, (int)getpid());
    return text_cleaned(raw, strlen(raw));
}

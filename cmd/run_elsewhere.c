/* What hosts say of a run that another machine began (see run_elsewhere.h). Changes nothing there. */
#include "cmd/run_elsewhere.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cmd/host_task.h"
#include "core/base/text.h"
#include "core/base/xalloc.h"
#include "core/status.h"

#define ASK_TIMEOUT_MS 60000

struct search;

struct finding {
    const struct search *search;
    struct fan_host *host;
    char *text; /* of a host that is held, or why it can't say; NULL: free */
    bool held;
    int64_t guard_s, lock_s; /* -1: none, or it doesn't say */
    char *run, *who;
};

struct search {
    const struct context *context;
    const char *run;          /* or NULL */
    struct finding *findings; /* one a host */
};

/* ---- one host ---- */

static bool is_sought(const struct search *search, const char *run) {
    return run != NULL && run[0] != '\0' &&
           (search->run == NULL || strstr(run, search->run) != NULL);
}

static void add_guard(struct buf *text, const struct status *status) {
    switch (status->guard) {
    case GUARD_NONE:
        break;
    case GUARD_ACTIVATING:
        buf_add_text(text, "its guard activates the new version");
        break;
    case GUARD_ACTIVE:
        buf_add_text(text, "its guard waits for the new version to be confirmed");
        if (status->guard_deadline_s >= 0) {
            buf_printf(text, ", and goes back by itself in %" PRId64 " s",
                       status->guard_deadline_s);
        }
        break;
    case GUARD_COMMITTING:
    case GUARD_COMMITTED:
        buf_add_text(text, "its guard keeps the new version, which takes a moment");
        break;
    case GUARD_REVERTING:
    case GUARD_REVERTED:
    case GUARD_REVERT_FAILED:
        buf_add_text(text, "its guard goes back to the version before");
        break;
    case GUARD_INERT:
        buf_add_text(text, "its guard has done nothing and ends");
        break;
    }
}

static char *cleaned(const char *text) {
    return text != NULL && text[0] != '\0' ? text_cleaned(text, strlen(text)) : NULL;
}

static void describe(const struct search *search, const struct target_reply *reply,
                     struct finding *ret) {
    struct status status;
    struct buf text = BUF_INIT;
    status_read(reply, NULL, &status);
    const char *guard_run = target_reply_get(reply, "guard_run");
    bool guard = status.guard != GUARD_NONE && is_sought(search, guard_run);
    bool lock = status.lock_id != NULL && is_sought(search, status.lock_run);
    ret->held = guard || (lock && status.lock_expires_s >= 0);
    if (ret->held) {
        ret->run = cleaned(guard ? guard_run : status.lock_run);
        ret->who = lock ? cleaned(status.lock_who) : NULL;
        ret->guard_s = guard ? status.guard_deadline_s : -1;
        ret->lock_s = lock ? status.lock_expires_s : -1;
        buf_printf(&text, "run %s%s%s: ", ret->run, ret->who != NULL ? " of " : "",
                   ret->who != NULL ? ret->who : "");
        if (guard) {
            add_guard(&text, &status);
        }
        if (lock) {
            buf_printf(&text, "%sits lock holds for %" PRId64 " s more", guard ? "; " : "",
                       status.lock_expires_s);
        }
        ret->text = buf_take(&text);
    }
    buf_free(&text);
    status_release(&status);
}

static void on_reply(int err, const struct target_reply *reply, const struct error *error,
                     void *arg) {
    struct finding *finding = arg;
    if (err == 0) {
        describe(finding->search, reply, finding);
    }
    fan_done(finding->host, err == 0 ? NULL : error);
}

static void ask(struct fan_host *host, void *arg) {
    struct search *search = arg;
    struct finding *finding = &search->findings[host->index];
    struct target_env env = {.profile = host->inv->profile};
    *finding = (struct finding){.search = search, .host = host};
    target_inspect(host->shell, &env, NULL, on_reply, finding);
}

static void on_result(const struct fan_host *host, const struct error *error, void *arg) {
    struct search *search = arg;
    if (error != NULL) {
        AUTO_FREE char *why = text_cleaned(error->message, strlen(error->message));
        search->findings[host->index].text = xasprintf("not to be asked: %s", why);
    }
}

/* ---- all of them ---- */

static void select_all(struct context *context) {
    size_t count = context->inventory->host_count;
    context->hosts = xcalloc(count + 1, sizeof(*context->hosts));
    for (size_t i = 0; i < count; i++) {
        context->hosts[i] = &context->inventory->hosts[i];
    }
    context->host_count = count;
}

/* Says what was found; true where a host is held. */
static bool tell(const struct search *search) {
    const struct finding *first = NULL;
    int64_t guard_s = -1, lock_s = -1;
    for (size_t i = 0; i < search->context->host_count; i++) {
        const struct finding *finding = &search->findings[i];
        if (finding->text != NULL) {
            fprintf(stderr, "%s: %s\n", search->context->hosts[i]->name, finding->text);
        }
        if (finding->held) {
            first = first == NULL || (first->who == NULL && finding->who != NULL) ? finding : first;
            guard_s = finding->guard_s > guard_s ? finding->guard_s : guard_s;
            lock_s = finding->lock_s > lock_s ? finding->lock_s : lock_s;
        }
    }
    if (first == NULL) {
        fputs("fleet: no host that answered knows of such a run that is under way: `fleet update` "
              "begins anew\n",
              stderr);
        return false;
    }
    fprintf(
        stderr,
        "fleet: another machine keeps the journal of that run%s%s: `fleet resume %s` there takes "
        "it up. If it is gone for good, wait until the guards have decided%s",
        first->who != NULL ? ", " : "", first->who != NULL ? first->who : "", first->run,
        guard_s < 0 ? "" : " (");
    if (guard_s >= 0) {
        fprintf(stderr, "%" PRId64 " s at most)", guard_s);
    }
    if (lock_s >= 0) {
        fprintf(stderr, " and the locks have lapsed (%" PRId64 " s)", lock_s);
    }
    fputs("; then `fleet update` begins anew\n", stderr);
    return true;
}

int run_elsewhere(struct context *context, const char *run, const struct error *not_here) {
    int code = context_fail(not_here);
    if (context_load(context) != 0) {
        return code;
    }
    select_all(context);
    struct search search = {.context = context, .run = run};
    search.findings = xcalloc(context->host_count + 1, sizeof(*search.findings));
    int failed = context_connect(context, true);
    if (failed == 0) {
        failed = host_task_run(context, true, ASK_TIMEOUT_MS, ask, on_result, &search);
    }
    if (failed != 0) {
        code = failed;
    } else if (tell(&search)) {
        code = EXIT_LOCKED;
    }
    for (size_t i = 0; i < context->host_count; i++) {
        free(search.findings[i].text);
        free(search.findings[i].run);
        free(search.findings[i].who);
    }
    free(search.findings);
    return code;
}

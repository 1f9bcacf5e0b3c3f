/* Each term of a selection is turned into the hosts that it means, as one flag a host; flags then
 * are added, narrowed and taken away. A term that means no host is an error, with the nearest name:
 * a misspelt exclusion would otherwise touch what was to be spared.
 */
#include "inventory/select.h"

#include <fnmatch.h>
#include <stdlib.h>
#include <string.h>

#include "core/base/text.h"
#include "core/base/xalloc.h"

struct selecting {
    const struct inventory *inventory;
    struct error *error;
    bool *flags; /* the result so far */
    bool *term;  /* one term's hosts */
    bool *group; /* what several terms add up to */
};

static bool is_known_tag(const struct inventory *inventory, const char *tag) {
    for (size_t i = 0; i < inventory->tags.count; i++) {
        if (strcmp(inventory->tags.items[i], tag) == 0) {
            return true;
        }
    }
    return false;
}

/* Flags, in `term`, the hosts with the tag; returns how many. */
static size_t flag_tag(struct selecting *selecting, const char *tag) {
    size_t count = 0;
    for (size_t i = 0; i < selecting->inventory->host_count; i++) {
        selecting->term[i] = inv_host_has_tag(&selecting->inventory->hosts[i], tag);
        count += selecting->term[i] ? 1 : 0;
    }
    return count;
}

static size_t flag_name(struct selecting *selecting, const char *pattern) {
    const struct inventory *inventory = selecting->inventory;
    memset(selecting->term, 0, inventory->host_count * sizeof(*selecting->term));
    const struct inv_host *host = inventory_host(inventory, pattern);
    if (host != NULL) {
        selecting->term[host->index] = true;
        return 1;
    }
    size_t count = 0;
    if (strpbrk(pattern, "*?[\\") != NULL) {
        for (size_t i = 0; i < inventory->host_count; i++) {
            selecting->term[i] = fnmatch(pattern, inventory->hosts[i].name, 0) == 0;
            count += selecting->term[i] ? 1 : 0;
        }
    }
    return count;
}

static int refuse_tag(struct selecting *selecting, const char *tag, const char *term) {
    const struct inv_strings *tags = &selecting->inventory->tags;
    AUTO_FREE char *shown = text_cleaned(tag, strlen(tag));
    AUTO_FREE char *shown_term = text_cleaned(term, strlen(term));
    if (is_known_tag(selecting->inventory, tag)) {
        return error_set(selecting->error, FLEET_ERR_USAGE, "no-match",
                         "%s matches nothing: no host has the tag \"%s\"", shown_term, shown);
    }
    const char *near = text_nearest(tag, tags->items, tags->count);
    if (near != NULL) {
        return error_set(selecting->error, FLEET_ERR_USAGE, "no-match",
                         "%s matches nothing: there is no tag \"%s\"; did you mean \"%s\"?",
                         shown_term, shown, near);
    }
    return error_set(selecting->error, FLEET_ERR_USAGE, "no-match",
                     "%s matches nothing: there is no tag \"%s\"; `fleet list` shows the tags",
                     shown_term, shown);
}

static int refuse_name(struct selecting *selecting, const char *pattern) {
    const struct inventory *inventory = selecting->inventory;
    const char **names = xcalloc(inventory->host_count, sizeof(*names));
    for (size_t i = 0; i < inventory->host_count; i++) {
        names[i] = inventory->hosts[i].name;
    }
    const char *near = text_nearest(pattern, names, inventory->host_count);
    free(names);
    AUTO_FREE char *shown = text_cleaned(pattern, strlen(pattern));
    if (is_known_tag(inventory, pattern)) {
        return error_set(selecting->error, FLEET_ERR_USAGE, "no-match",
                         "no host is named \"%s\"; the tag is \"@%s\"", shown, pattern);
    }
    if (near != NULL) {
        return error_set(selecting->error, FLEET_ERR_USAGE, "no-match",
                         "no host matches \"%s\"; did you mean \"%s\"?", shown, near);
    }
    return error_set(selecting->error, FLEET_ERR_USAGE, "no-match",
                     "no host matches \"%s\"; `fleet list` shows the hosts", shown);
}

/* Flags, in `term`, what a selector means: @all, @tag, a name or a glob. */
static int flag_selector(struct selecting *selecting, const char *selector) {
    if (selector[0] == '\0') {
        return error_set(selecting->error, FLEET_ERR_USAGE, "usage",
                         "an empty selector; allowed: a host's name, a glob, @tag, @all");
    }
    if (strcmp(selector, "@all") == 0) {
        memset(selecting->term, true, selecting->inventory->host_count * sizeof(*selecting->term));
        return 0;
    }
    if (selector[0] == '@') {
        return flag_tag(selecting, selector + 1) > 0
                   ? 0
                   : refuse_tag(selecting, selector + 1, selector);
    }
    return flag_name(selecting, selector) > 0 ? 0 : refuse_name(selecting, selector);
}

static void add_flags(bool *to, const bool *flags, size_t count) {
    for (size_t i = 0; i < count; i++) {
        to[i] = to[i] || flags[i];
    }
}

static void keep_flags(bool *to, const bool *flags, size_t count, bool wanted) {
    for (size_t i = 0; i < count; i++) {
        to[i] = to[i] && flags[i] == wanted;
    }
}

/* Hosts that carry every tag of "a+!b", in `ret`. */
static int flag_conjunction(struct selecting *selecting, char *text, const char *whole, bool *ret) {
    size_t count = selecting->inventory->host_count;
    memset(ret, true, count * sizeof(*ret));
    char *rest = text;
    for (char *atom; (atom = strsep(&rest, "+")) != NULL;) {
        bool wanted = atom[0] != '!';
        const char *tag = wanted ? atom : atom + 1;
        if (tag[0] == '\0') {
            AUTO_FREE char *shown = text_cleaned(whole, strlen(whole));
            return error_set(selecting->error, FLEET_ERR_USAGE, "usage",
                             "the tag expression \"%s\" has an empty part; allowed: a,b (or), a+b "
                             "(and), !a (not)",
                             shown);
        }
        size_t found = flag_tag(selecting, tag);
        /* That nobody has an excluded tag is fine, that nobody knows it isn't. */
        if (found == 0 && (wanted || !is_known_tag(selecting->inventory, tag))) {
            return refuse_tag(selecting, tag, whole);
        }
        keep_flags(ret, selecting->term, count, wanted);
    }
    return 0;
}

static size_t count_flags(const bool *flags, size_t count) {
    size_t set = 0;
    for (size_t i = 0; i < count; i++) {
        set += flags[i] ? 1 : 0;
    }
    return set;
}

/* Narrows to a --tag expression. */
static int narrow_to_tags(struct selecting *selecting, const char *expression) {
    size_t count = selecting->inventory->host_count;
    AUTO_FREE char *copy = xstrdup(expression);
    AUTO_FREE bool *all_of = xcalloc(count, sizeof(*all_of));
    memset(selecting->group, 0, count * sizeof(*selecting->group));
    char *rest = copy;
    for (char *part; (part = strsep(&rest, ",")) != NULL;) {
        int code = flag_conjunction(selecting, part, expression, all_of);
        if (code != 0) {
            return code;
        }
        add_flags(selecting->group, all_of, count);
    }
    if (count_flags(selecting->group, count) == 0) {
        AUTO_FREE char *shown = text_cleaned(expression, strlen(expression));
        return error_set(selecting->error, FLEET_ERR_USAGE, "no-match",
                         "--tag %s matches nothing: no host has these tags together", shown);
    }
    keep_flags(selecting->flags, selecting->group, count, true);
    return 0;
}

/* Flags, in `group`, what a comma separated list of --on or --exclude means: what its terms add up
 * to (all hosts where each begins with '!'), less those with '!'. */
static int flag_list(struct selecting *selecting, const char *list) {
    size_t count = selecting->inventory->host_count;
    AUTO_FREE char *copy = xstrdup(list);
    AUTO_FREE bool *without = xcalloc(count, sizeof(*without));
    bool any = false;
    memset(selecting->group, 0, count * sizeof(*selecting->group));
    char *rest = copy;
    for (char *part; (part = strsep(&rest, ",")) != NULL;) {
        bool excluded = part[0] == '!';
        int code = flag_selector(selecting, excluded ? part + 1 : part);
        if (code != 0) {
            return code;
        }
        any = any || !excluded;
        add_flags(excluded ? without : selecting->group, selecting->term, count);
    }
    if (!any) {
        memset(selecting->group, true, count * sizeof(*selecting->group));
    }
    keep_flags(selecting->group, without, count, false);
    return 0;
}

static int add_selectors(struct selecting *selecting, const struct inv_strings *selectors) {
    size_t count = selecting->inventory->host_count;
    if (selectors->count == 0) {
        memset(selecting->flags, true, count * sizeof(*selecting->flags));
    }
    for (size_t i = 0; i < selectors->count; i++) {
        int code = flag_selector(selecting, selectors->items[i]);
        if (code != 0) {
            return code;
        }
        add_flags(selecting->flags, selecting->term, count);
    }
    return 0;
}

/* Every narrowing word as it was given, for the message when nothing is left. */
static void add_words(struct buf *out, const char *option, const struct inv_strings *words) {
    for (size_t i = 0; i < words->count; i++) {
        buf_printf(out, "%s%s%s", out->len > 0 ? " " : "", option, words->items[i]);
    }
}

static int refuse_empty(struct selecting *selecting, const struct selection_args *args) {
    struct buf words = BUF_INIT;
    struct buf shown = BUF_INIT;
    add_words(&words, "", &args->selectors);
    add_words(&words, "--tag ", &args->tags);
    add_words(&words, "--on ", &args->on);
    add_words(&words, "--exclude ", &args->exclude);
    text_clean(&shown, buf_text(&words), words.len, false);
    int code = error_set(selecting->error, FLEET_ERR_USAGE, "no-match", "no host is left by: %s",
                         buf_text(&shown));
    buf_free(&words);
    buf_free(&shown);
    return code;
}

static int select_hosts(struct selecting *selecting, const struct selection_args *args) {
    size_t count = selecting->inventory->host_count;
    int code = add_selectors(selecting, &args->selectors);
    for (size_t i = 0; i < args->tags.count && code == 0; i++) {
        code = narrow_to_tags(selecting, args->tags.items[i]);
    }
    for (size_t i = 0; i < args->on.count && code == 0; i++) {
        code = flag_list(selecting, args->on.items[i]);
        keep_flags(selecting->flags, selecting->group, count, true);
    }
    for (size_t i = 0; i < args->exclude.count && code == 0; i++) {
        code = flag_list(selecting, args->exclude.items[i]);
        keep_flags(selecting->flags, selecting->group, count, false);
    }
    if (code == 0 && count > 0 && count_flags(selecting->flags, count) == 0) {
        code = refuse_empty(selecting, args);
    }
    return code;
}

int selection_resolve(const struct inventory *inventory, const struct selection_args *args,
                      const struct inv_host ***ret, size_t *ret_count, struct error *error) {
    size_t count = inventory->host_count;
    struct selecting selecting = {
        .inventory = inventory,
        .error = error,
        .flags = xcalloc(count, sizeof(bool)),
        .term = xcalloc(count, sizeof(bool)),
        .group = xcalloc(count, sizeof(bool)),
    };
    int code = select_hosts(&selecting, args);
    if (code == 0) {
        const struct inv_host **hosts = xcalloc(count, sizeof(*hosts));
        size_t selected = 0;
        for (size_t i = 0; i < count; i++) {
            if (selecting.flags[i]) {
                hosts[selected++] = &inventory->hosts[i];
            }
        }
        *ret = hosts;
        *ret_count = selected;
    }
    free(selecting.flags);
    free(selecting.term);
    free(selecting.group);
    return code;
}

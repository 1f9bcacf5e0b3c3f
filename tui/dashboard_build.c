/* The builds: a line a host, and below it the tree of what its system needs.
 *
 * As nix-output-monitor does it, a part of the tree is opened where something happens in it: what
 * is under way or has failed. What is done, or waits as a whole, is one line with a count. So the
 * pane is as long as there is work, however large the closure.
 */
#include <stdlib.h>
#include <string.h>

#include "core/base/text.h"
#include "core/base/xalloc.h"
#include "tui/dashboard_parts.h"
#include "tui/pane.h"

#define DEPTH_MAX   24
#define NAME_COL    18
#define PHASE_COLS  16
#define TIME_COLS   8
#define DETAIL_FROM 70 /* columns from which on phase and machine are shown */

static const struct dash *dash_of(const struct pane *pane) {
    return pane->owner;
}

/* The tree as the frame needs it. */
struct tree {
    const struct model *model;
    size_t *first, *next; /* child, sibling; MODEL_NONE: none */
    size_t *busy;         /* under way or failed, at or below the step */
    size_t *waiting, *done;
};

static bool is_busy(enum model_step_state state) {
    return state == STEP_IS_BUILDING || state == STEP_IS_FETCHING || state == STEP_IS_FAILED;
}

static struct tree tree_new(const struct model *model) {
    size_t count = model->step_count + 1;
    struct tree tree = {.model = model};
    size_t **lists[] = {&tree.first, &tree.next, &tree.busy, &tree.waiting, &tree.done};
    for (size_t i = 0; i < ARRAY_LEN(lists); i++) {
        *lists[i] = xcalloc(count, sizeof(size_t));
    }
    for (size_t i = 0; i < model->step_count; i++) {
        tree.first[i] = tree.next[i] = MODEL_NONE;
    }
    /* Parents stand before their children. */
    for (size_t i = model->step_count; i > 0; i--) {
        size_t at = i - 1;
        const struct model_step *step = &model->steps[at];
        tree.busy[at] += is_busy(step->state);
        tree.waiting[at] += step->state == STEP_IS_WAITING;
        tree.done[at] += !is_busy(step->state) && step->state != STEP_IS_WAITING;
        if (step->parent != MODEL_NONE) {
            tree.busy[step->parent] += tree.busy[at];
            tree.waiting[step->parent] += tree.waiting[at];
            tree.done[step->parent] += tree.done[at];
            tree.next[at] = tree.first[step->parent];
            tree.first[step->parent] = at;
        }
    }
    return tree;
}

static void tree_free(struct tree *tree) {
    free(tree->first);
    free(tree->next);
    free(tree->busy);
    free(tree->waiting);
    free(tree->done);
}

static const struct {
    const char *sign, *word;
    unsigned style;
} looks[] = {
    [STEP_IS_WAITING] = {"◌", "waits", TONE_DIM},
    [STEP_IS_BUILDING] = {"●", "building", STYLE_ACCENT},
    [STEP_IS_FETCHING] = {"↓", "fetching", STYLE_ACCENT},
    [STEP_IS_FAILED] = {"✗", "failed", TONE_BAD},
    [STEP_IS_BUILT] = {"✓", "built", TONE_GOOD},
    [STEP_IS_FETCHED] = {"✓", "fetched", TONE_GOOD},
};
_Static_assert(ARRAY_LEN(looks) == STEP_STATE_COUNT, "a look for every state");

static void add_time(const struct dash *dash, const struct model_step *step, struct buf *out) {
    int64_t end = step->ended_ms > 0 ? step->ended_ms : dash_clock_ms(dash);
    if (step->began_ms > 0 && end >= step->began_ms) {
        if (step->ended_ms > 0) {
            text_add_duration(out, (unsigned long long)(end - step->began_ms));
        } else {
            wording_elapsed(end - step->began_ms, out);
        }
    }
}

/* What a step that stands for those below it says of them: "12 wait, 3 built". */
static void add_rest(const struct tree *tree, size_t at, struct buf *out) {
    const struct model_step *step = &tree->model->steps[at];
    size_t waiting = tree->waiting[at] - (step->state == STEP_IS_WAITING);
    size_t done = tree->done[at] - (!is_busy(step->state) && step->state != STEP_IS_WAITING);
    if (waiting > 0) {
        buf_printf(out, "  %zu below wait%s", waiting, waiting == 1 ? "s" : "");
    }
    if (done > 0) {
        buf_printf(out, "%s %zu below done", waiting > 0 ? "," : " ", done);
    }
}

/* The step's own line. Returns the column of its name. */
static int write_step(struct pane *pane, const struct tree *tree, size_t at, const char *lead,
                      bool closed) {
    const struct model_step *step = &tree->model->steps[at];
    struct screen *screen = pane->screen;
    int row = pane_row(pane);
    int edge = screen->cols - 1;
    struct buf text = BUF_INIT;
    int col = 1 + screen_width(screen, lead);
    int name = col + (screen->ascii ? 3 : 2);
    screen_put(screen, row, 1, edge, TONE_DIM, lead);
    screen_put(screen, row, col, edge, looks[step->state].style, looks[step->state].sign);
    bool wide = screen->cols >= DETAIL_FROM;
    int end = edge - TIME_COLS - (wide ? 2 * PHASE_COLS : 0);
    wording_store_name(step->drv, &text);
    col = screen_put(screen, row, name, end, is_busy(step->state) ? TONE_PLAIN : TONE_DIM,
                     buf_text(&text));
    buf_clear(&text);
    if (closed) {
        add_rest(tree, at, &text);
        screen_put(screen, row, col, end, TONE_DIM, buf_text(&text));
        buf_clear(&text);
    }
    if (wide && step->state != STEP_IS_WAITING) {
        const char *phase = step->phase != NULL ? step->phase : looks[step->state].word;
        screen_put(screen, row, end + 1, end + PHASE_COLS - 1, looks[step->state].style, phase);
        screen_put(screen, row, end + PHASE_COLS, end + 2 * PHASE_COLS - 1, TONE_DIM,
                   step->machine != NULL ? step->machine : "");
    }
    add_time(dash_of(pane), step, &text);
    screen_put(screen, row, edge - screen_width(screen, buf_text(&text)), screen->cols, TONE_DIM,
               buf_text(&text));
    buf_free(&text);
    return name;
}

/* A step, its last line while it is at work, and what it needs: `lead` is drawn before it, `below`
 * before what follows. */
static void write_tree(struct pane *pane, const struct tree *tree, size_t at, const char *lead,
                       const char *below, int depth) {
    const struct model_step *step = &tree->model->steps[at];
    size_t own = is_busy(step->state);
    bool closed = tree->busy[at] == own || depth == DEPTH_MAX;
    int name = write_step(pane, tree, at, lead, closed);
    if (own > 0 && step->last_line != NULL && step->state != STEP_IS_FETCHING) {
        int row = pane_row(pane);
        struct screen *screen = pane->screen;
        screen_put(screen, row, 1, screen->cols, TONE_DIM, below);
        screen_put(screen, row, name + 1, screen->cols - 1, TONE_DIM, step->last_line);
    }
    size_t left = 0;
    for (size_t child = tree->first[at]; child != MODEL_NONE; child = tree->next[child]) {
        left++;
    }
    /* What is at work first, then what waits; what is done at the end. */
    for (int pass = 0; pass < 3 && !closed; pass++) {
        for (size_t child = tree->first[at]; child != MODEL_NONE; child = tree->next[child]) {
            int wanted = tree->busy[child] > 0 ? 0 : tree->waiting[child] > 0 ? 1 : 2;
            if (wanted == pass) {
                bool last = --left == 0;
                char *child_lead = xasprintf(last ? "%s└ " : "%s├ ", below);
                char *child_below = xasprintf(last ? "%s  " : "%s│ ", below);
                write_tree(pane, tree, child, child_lead, child_below, depth + 1);
                free(child_lead);
                free(child_below);
            }
        }
    }
}

/* ---- hosts ---- */

static const char *const host_states[] = {"failed", "building", "evaluating", "built"};
static const unsigned host_styles[] = {TONE_BAD, STYLE_ACCENT, TONE_PLAIN, TONE_GOOD};

static size_t root_of(const struct tree *tree, size_t host, const char *drv) {
    for (size_t i = 0; drv != NULL && i < tree->model->step_count; i++) {
        const struct model_step *step = &tree->model->steps[i];
        if (step->parent == MODEL_NONE && step->host == host && strcmp(step->drv, drv) == 0) {
            return i;
        }
    }
    return MODEL_NONE;
}

static void write_host(struct pane *pane, const struct tree *tree, size_t host, size_t state) {
    const struct dash *dash = pane->owner;
    struct screen *screen = pane->screen;
    const struct model_host *model = &dash->model.hosts[host];
    size_t root = root_of(tree, host, model->drv);
    bool opens = root != MODEL_NONE && tree->busy[root] > 0;
    int row = pane_row(pane);
    screen_put(screen, row, 1, NAME_COL - 1, TONE_PLAIN, dash->view->hosts[host].name);
    int col =
        screen_put(screen, row, NAME_COL, NAME_COL + 11, host_styles[state], host_states[state]);
    struct buf text = BUF_INIT;
    if (model->drv != NULL && !opens) {
        wording_store_name(model->drv, &text);
        col = screen_put(screen, row, NAME_COL + 12, screen->cols - 1, TONE_DIM, buf_text(&text));
        buf_clear(&text);
    }
    if (root != MODEL_NONE && !opens) {
        add_rest(tree, root, &text);
        screen_put(screen, row, col, screen->cols - 1, TONE_DIM, buf_text(&text));
    }
    buf_free(&text);
    if (opens) {
        write_tree(pane, tree, root, "  ", "  ", 0);
    } else if (state == 1 && root == MODEL_NONE && model->last_line != NULL) {
        /* No tree: another build tool, or a Nix that doesn't tell. */
        screen_put(screen, pane_row(pane), NAME_COL, screen->cols - 1, TONE_DIM, model->last_line);
    }
}

/* Steps that no host's tree holds: what is fetched, or whose needs are not known. */
static void write_others(struct pane *pane, const struct tree *tree) {
    for (size_t i = 0; i < tree->model->step_count; i++) {
        const struct model_step *step = &tree->model->steps[i];
        bool shown = false;
        if (step->host < dash_of(pane)->view->host_count) {
            const char *drv = dash_of(pane)->model.hosts[step->host].drv;
            shown = drv != NULL && strcmp(drv, step->drv) == 0;
        }
        if (step->parent == MODEL_NONE && !shown && tree->busy[i] > 0) {
            write_tree(pane, tree, i, "  ", "  ", 0);
        }
    }
}

static void write_builds(struct pane *pane, size_t number) {
    const struct dash *dash = pane->owner;
    struct tree tree = tree_new(&dash->model);
    (void)number;
    for (size_t state = 0; state < ARRAY_LEN(host_states); state++) {
        for (size_t i = 0; i < dash->view->host_count; i++) {
            const char *own = dash->model.hosts[i].build_state;
            if (own != NULL && strcmp(own, host_states[state]) == 0) {
                write_host(pane, &tree, i, state);
            }
        }
        if (state == 1) {
            write_others(pane, &tree);
        }
    }
    if (pane->line == 0) {
        screen_put(pane->screen, pane_row(pane), 1, pane->screen->cols - 1, TONE_DIM,
                   "nothing has been built in this run");
    }
    tree_free(&tree);
}

static void add_counts(const struct model *model, struct buf *out) {
    static const char *const words[] = {
        [STEP_IS_WAITING] = "waiting",   [STEP_IS_BUILDING] = "building",
        [STEP_IS_FETCHING] = "fetching", [STEP_IS_FAILED] = "failed",
        [STEP_IS_BUILT] = "done",        [STEP_IS_FETCHED] = "fetched",
    };
    static const enum model_step_state order[] = {STEP_IS_FAILED,   STEP_IS_BUILDING,
                                                  STEP_IS_FETCHING, STEP_IS_WAITING,
                                                  STEP_IS_BUILT,    STEP_IS_FETCHED};
    size_t counts[STEP_STATE_COUNT] = {0};
    for (size_t i = 0; i < model->step_count; i++) {
        counts[model->steps[i].state]++;
    }
    const char *lead = " · derivations: ";
    for (size_t i = 0; i < ARRAY_LEN(order); i++) {
        if (counts[order[i]] > 0) {
            buf_printf(out, "%s%zu %s", lead, counts[order[i]], words[order[i]]);
            lead = ", ";
        }
    }
}

void dash_draw_build(struct dash *dash, int row, int end_row) {
    size_t built = 0;
    size_t all = 0;
    for (size_t i = 0; i < dash->model.host_count; i++) {
        const char *state = dash->model.hosts[i].build_state;
        all += state != NULL;
        built += state != NULL && strcmp(state, "built") == 0;
    }
    struct buf title = BUF_INIT;
    buf_printf(&title, "builds · %zu of %zu built", built, all);
    add_counts(&dash->model, &title);
    dash_rule(&dash->screen, row++, buf_text(&title));
    buf_free(&title);
    pane_draw(&dash->screen, dash, &dash->state.build, row, end_row, write_builds, 0);
}

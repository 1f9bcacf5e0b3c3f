/* The state of a fleet at rest, looked at again and again: one kept connection a host, asked at an
 * interval, opened again where it was lost. What `fleet status --watch` shows.
 *
 * Nothing there is changed and nothing is locked. Everything happens on the caller's loop; the
 * callback never fires before survey_new has returned. The options' arrays are borrowed until
 * survey_stop has called back; they are struct fan_options' own but for the loop.
 */
#ifndef FLEET_CORE_SURVEY_H
#define FLEET_CORE_SURVEY_H

#include <uv.h>

#include "core/spec.h"
#include "core/status_query.h"

struct survey;

struct survey_options {
    const struct inv_host *const *hosts;
    const char *const *desired; /* one a host, NULL: not known; see status_read */
    size_t host_count;
    struct spec_set *specs;
    struct keyring *keyring;
    uint64_t every_ms; /* from one answer to the next question; 0: 5 s */
    bool probe;        /* run the probes each time, too */
    uint32_t opening;  /* connections being made at once; 0: 32 */
};

/* What is known of a host after each look. `answer` is NULL where it was not reached or could not
 * be asked, and `error` says why; both are valid during the call. */
struct survey_look {
    size_t host; /* in the options' order */
    const struct status_answer *answer;
    const struct error *error;
    bool connected; /* a session stands, or stood until this look failed */
    uint64_t duration_ms;
};
typedef void (*survey_look_fn)(const struct survey_look *look, void *arg);

struct survey *survey_new(uv_loop_t *loop, const struct survey_options *options,
                          survey_look_fn looked, void *arg);
/* Asks the host (SIZE_MAX: all) now instead of when its time comes. */
void survey_ask(struct survey *survey, size_t host);
/* Another interval, from the next answer on. */
void survey_every(struct survey *survey, uint64_t every_ms);
/* Closes everything. No look follows; `stopped` is called once, later on the loop, and the survey is
 * gone then. */
void survey_stop(struct survey *survey, void (*stopped)(void *arg), void *arg);

#endif

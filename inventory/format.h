/* What a string in the inventory must look like, by name: each format is a check in C, the same as
 * a pattern for the JSON Schema, and the words that tell a person what is allowed.
 */
#ifndef FLEET_INVENTORY_FORMAT_H
#define FLEET_INVENTORY_FORMAT_H

#include <stdbool.h>

struct text_format {
    /* True if `text`, with ${name} already expanded, is one. */
    bool (*check)(const char *text);
    const char *pattern; /* ECMA 262, for the text as written: ${name} is allowed in it */
    const char *allowed; /* "a duration such as \"30s\"" */
    bool is_file;        /* ~ and a relative path are resolved from the inventory's folder */
};

extern const struct text_format format_line;        /* not empty, no control character */
extern const struct text_format format_free;        /* anything */
extern const struct text_format format_argument;    /* not empty, newlines and tabs allowed */
extern const struct text_format format_name;        /* CONTRACT: users, hosts, jumps */
extern const struct text_format format_address;     /* host, host:port, [v6]:port */
extern const struct text_format format_probe_host;  /* a host without port, ${address} */
extern const struct text_format format_file;        /* a file on this machine */
extern const struct text_format format_target_path; /* absolute, without ".." */
extern const struct text_format format_store_path;  /* /nix/store/HASH-NAME */
extern const struct text_format format_url;         /* SCHEME://... */
extern const struct text_format format_http_url;
extern const struct text_format format_tag;         /* no white space, none of , + ! @ */
extern const struct text_format format_secret_name; /* a file name */
extern const struct text_format format_host_key;    /* "ssh-ed25519 AAAA..." */
extern const struct text_format format_cache_key;   /* "name:base64" */
extern const struct text_format format_method;      /* GET */
extern const struct text_format format_mode;        /* "0400" */
extern const struct text_format format_regex;       /* POSIX extended */
extern const struct text_format format_duration;    /* units_parse_duration */
extern const struct text_format format_positive;    /* the same, more than 0 */
extern const struct text_format format_size;        /* units_parse_size */
extern const struct text_format format_percent;     /* units_parse_percent */
extern const struct text_format format_status;      /* "200..399" */

#endif

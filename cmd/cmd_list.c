/* `fleet list`: hosts, tags and addresses after merging. */
#include <stdio.h>
#include <string.h>

#include "cmd/context.h"
#include "cmd/json_line.h"
#include "core/base/text.h"
#include "core/base/xalloc.h"

/* "10.0.0.11", "10.0.0.11:2222", "[fd00::11]:2222"; the port only where the address has its own. */
static void add_address(struct buf *out, const struct inv_address *address) {
    bool bracketed = address->port != 0 && strchr(address->host, ':') != NULL;
    buf_printf(out, bracketed ? "[%s]" : "%s", address->host);
    if (address->port != 0) {
        buf_printf(out, ":%u", address->port);
    }
}

static void add_strings(struct buf *out, const struct inv_strings *strings) {
    for (size_t i = 0; i < strings->count; i++) {
        buf_printf(out, "%s%s", i > 0 ? "," : "", strings->items[i]);
    }
}

static void list_addresses(struct buf *out, const struct inv_host *host) {
    if (host->local) {
        buf_add_text(out, "local");
    }
    for (size_t i = 0; i < host->address_count; i++) {
        buf_add_text(out, i > 0 ? "," : "");
        add_address(out, &host->addresses[i]);
    }
}

static void print_json(const struct inv_host *host) {
    struct buf line = BUF_INIT;
    struct buf address = BUF_INIT;
    json_open(&line, NULL);
    json_text(&line, "host", host->name);
    json_list_open(&line, "addresses");
    if (host->local) {
        json_text(&line, NULL, "local");
    }
    for (size_t i = 0; i < host->address_count; i++) {
        add_address(&address, &host->addresses[i]);
        json_text(&line, NULL, buf_text(&address));
        buf_clear(&address);
    }
    json_list_close(&line);
    if (host->port != 0) {
        json_number(&line, "port", host->port);
    } else {
        json_null(&line, "port");
    }
    json_text(&line, "user", host->user);
    json_list_open(&line, "tags");
    for (size_t i = 0; i < host->tags.count; i++) {
        json_text(&line, NULL, host->tags.items[i]);
    }
    json_list_close(&line);
    json_close(&line);
    json_print(&line);
    buf_free(&line);
    buf_free(&address);
}

struct widths {
    size_t host, address;
};

static void print_row(const struct inv_host *host, const struct widths *widths) {
    struct buf row = BUF_INIT;
    struct buf address = BUF_INIT;
    list_addresses(&address, host);
    buf_printf(&row, "%-*s  %-*s  ", (int)widths->host, host->name, (int)widths->address,
               buf_text(&address));
    buf_printf(&row, "%-10s  ", host->user != NULL ? host->user : "-");
    add_strings(&row, &host->tags);
    while (row.len > 0 && row.data[row.len - 1] == ' ') {
        row.data[--row.len] = '\0';
    }
    puts(buf_text(&row));
    buf_free(&row);
    buf_free(&address);
}

static void print_table(const struct context *context) {
    struct widths widths = {strlen("HOST"), strlen("ADDRESS")};
    for (size_t i = 0; i < context->host_count; i++) {
        struct buf address = BUF_INIT;
        list_addresses(&address, context->hosts[i]);
        size_t host_width = strlen(context->hosts[i]->name);
        widths.host = host_width > widths.host ? host_width : widths.host;
        widths.address = address.len > widths.address ? address.len : widths.address;
        buf_free(&address);
    }
    if (context->verbosity >= 0) {
        printf("%-*s  %-*s  %-10s  %s\n", (int)widths.host, "HOST", (int)widths.address, "ADDRESS",
               "USER", "TAGS");
    }
    for (size_t i = 0; i < context->host_count; i++) {
        print_row(context->hosts[i], &widths);
    }
}

int cmd_list(const struct args *args) {
    struct context context;
    context_init(&context, args);
    int code = context_load(&context);
    if (code == 0) {
        code = context_select(&context);
    }
    if (code == 0 && context.json) {
        for (size_t i = 0; i < context.host_count; i++) {
            print_json(context.hosts[i]);
        }
    } else if (code == 0) {
        print_table(&context);
    }
    context_release(&context);
    return code;
}

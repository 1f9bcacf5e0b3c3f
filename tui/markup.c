/* Escaping for XML and Markdown (see markup.h): one walk, a table each. */
#include "tui/markup.h"

#include <string.h>

struct reference {
    const char *from, *to;
};

/* Appends `text`, with what the table names replaced; it ends with a NULL. */
static void add(struct buf *out, const char *text, const struct reference *table) {
    while (*text != '\0') {
        const struct reference *found = table;
        while (found->from != NULL && strncmp(text, found->from, strlen(found->from)) != 0) {
            found++;
        }
        if (found->from != NULL) {
            buf_add_text(out, found->to);
            text += strlen(found->from);
        } else {
            buf_add_char(out, *text++);
        }
    }
}

void markup_add_xml(struct buf *out, const char *text) {
    /* U+FFFE and U+FFFF are no characters of XML. */
    static const struct reference table[] = {
        {"&", "&amp;"},
        {"<", "&lt;"},
        {">", "&gt;"},
        {"\"", "&quot;"},
        {"\n", "&#10;"},
        {"\xEF\xBF\xBE", "\xEF\xBF\xBD"},
        {"\xEF\xBF\xBF", "\xEF\xBF\xBD"},
        {NULL, NULL},
    };
    add(out, text, table);
}

void markup_add_cell(struct buf *out, const char *text) {
    static const struct reference table[] = {
        {"&", "&amp;"},  {"<", "&lt;"},  {"\n", "<br>"}, {"|", "&#124;"},
        {"\\", "&#92;"}, {"`", "&#96;"}, {"*", "&#42;"}, {"_", "&#95;"},
        {"[", "&#91;"},  {"!", "&#33;"}, {"@", "&#64;"}, {NULL, NULL},
    };
    add(out, text, table);
}

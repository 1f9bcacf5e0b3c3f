/* A line that a person types into: a filter, a search, a word that confirms. UTF-8, in a buffer of
 * the caller's.
 */
#ifndef FLEET_TUI_INPUT_LINE_H
#define FLEET_TUI_INPUT_LINE_H

#include <stdbool.h>
#include <stddef.h>

#define INPUT_LINE_SIZE 257

/* Takes a key (tui/key_input.h): a character, or Backspace. False where it is another one. */
bool input_line_type(char input[INPUT_LINE_SIZE], int key);

#endif

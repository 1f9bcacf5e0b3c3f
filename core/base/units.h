/* Durations, sizes and percentages as people write them (CONTRACT, Inventory).
 *
 * Each returns 0, or FLEET_ERR_USAGE with nothing written. No white space, no sign, no overflow.
 */
#ifndef FLEET_BASE_UNITS_H
#define FLEET_BASE_UNITS_H

#include <stdint.h>

/* "500ms", "30s", "5m", "1h", "2d". */
int units_parse_duration(const char *text, uint64_t *ret_ms);
/* "10MB", "1.5GB", "512KB", "100B": powers of 1000; "KiB", "MiB", "GiB": of 1024. */
int units_parse_size(const char *text, uint64_t *ret_bytes);
/* "10%": 0..100. */
int units_parse_percent(const char *text, uint32_t *ret_percent);

#endif

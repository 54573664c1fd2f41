/*
 * Conditional requests (RFC 9110 section 13): If-None-Match and
 * If-Modified-Since in the compact form that a call keeps; inside api/ only.
 */
#ifndef API_CONDITION_H
#define API_CONDITION_H

#include "api/api_call.h"

/* Read both fields of a GET or HEAD; *condition is written in any case. */
void api_condition_read(
    struct api_condition *condition, const struct api_request *request);

/*
 * A date of RFC 9110 section 5.6.7 in any of its three forms as Unix time, 0
 * when it is before 1970.  False when it is none; nothing is written then.
 */
bool api_condition_date(struct api_slice text, uint64_t *unix_s) SHM_MUSTCHECK;

/* The 64 bits that api_etag() prints. */
uint64_t api_etag_value(const struct api_version *version);

/* Read 16 hexadecimal digits as api_etag() prints them (lower case). */
bool api_etag_read(const char digits[16], uint64_t *value) SHM_MUSTCHECK;

#endif

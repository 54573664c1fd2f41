/*
 * Values of settings as text: numbers with units, choices, and what to say
 * when a text is none of them.
 */
#ifndef MASTER_VALUE_H
#define MASTER_VALUE_H

#include "master/master_settings.h"

#define MASTER_VALUE_NEED_BYTES 200

/* MIN..MAX as one number; a number alone has most 0. */
#define MASTER_VALUE_RANGE(least, most) ((least) | (most) << 16)
#define MASTER_VALUE_LEAST(number)	((number)&0xffff)
#define MASTER_VALUE_MOST(number)	((number) >> 16)

/* Types with a number (BOOL and ENUM have one, "auto" is 0): the number, when
 * text is one within the limits. */
bool master_value_number(const struct master_setting *setting, const char *text,
    uint64_t *number) SHM_MUSTCHECK;

/* Types with a text: may this be the value? */
bool master_value_is_text(
    const struct master_setting *setting, const char *text) SHM_MUSTCHECK;

/* "auto or 1 to 64 processes": what would have been right. */
void master_value_need(
    const struct master_setting *setting, char need[MASTER_VALUE_NEED_BYTES]);

/* 30s, 1500ms; for messages. */
void master_value_duration(uint64_t ms, char text[32]);

#endif

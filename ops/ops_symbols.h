/*
 * Names of addresses in this program: ops is a fork of the same master as the
 * workers, so theirs are the same.
 */
#ifndef OPS_SYMBOLS_H
#define OPS_SYMBOLS_H

#include "shm/shm_base.h"

#define OPS_SYMBOLS_NAME 128 /* longer names are cut */

struct ops_symbols;

/* Of our own program's file.  Without symbols there, or without memory,
 * addresses get other names.  Never NULL but without memory. */
struct ops_symbols *ops_symbols_new(void) SHM_MUSTCHECK;
void ops_symbols_free(struct ops_symbols **symbols); /* takes; NULL is fine */

/* "worker_conn_read", "[libc.so.6]" with a function's name if it is known, or
 * "[unknown]"; without ';' and spaces. */
void ops_symbols_name(const struct ops_symbols *symbols, uint64_t pc,
    char name[OPS_SYMBOLS_NAME]);

#endif

/*
 * What the control socket tells of the cache, and does to it.
 */
#ifndef OPS_CACHE_H
#define OPS_CACHE_H

#include "ops/ops_http.h"

#define OPS_CACHE_KEYS_DEFAULT 100
#define OPS_CACHE_KEYS_MAX     10000
#define OPS_CACHE_DUMPS_MAX    2 /* at a time: then 503 */

/* GET /cache: the counters and sizes, and whether changes are heard. */
enum MHD_Result ops_cache_status(const struct ops_request *request);

/* POST /cache/flush?class=all|books|lists|negatives, or ?isbn=..., either any
 * number of times. */
enum MHD_Result ops_cache_flush(const struct ops_request *request);

/* GET /cache/keys?limit=N: the most used entries. */
enum MHD_Result ops_cache_keys(const struct ops_request *request);

#endif

/*
 * JSON, written member by member into a buffer: compact, and without a tree
 * that would have to be made for each second's status.
 */
#ifndef OPS_JSON_H
#define OPS_JSON_H

#include "api/api_slice.h"

struct ops_json {
	struct api_buf *buf; /* borrowed; when it fails, all is void */
	bool needs_comma;
};

/* key is ours and needs no escape; NULL in an array and outside of all. */
void ops_json_object(struct ops_json *json, const char *key);
void ops_json_array(struct ops_json *json, const char *key);
void ops_json_end_object(struct ops_json *json);
void ops_json_end_array(struct ops_json *json);

void ops_json_u64(struct ops_json *json, const char *key, uint64_t value);
/* At most six decimals; what is no number is null. */
void ops_json_real(struct ops_json *json, const char *key, double value);
/* NULL is null. */
void ops_json_text(struct ops_json *json, const char *key, const char *value);
/* A number alone, in the same form; it has to be one. */
void ops_json_number(struct api_buf *buf, double value);
void ops_json_bool(struct ops_json *json, const char *key, bool value);
void ops_json_null(struct ops_json *json, const char *key);

#endif

#include "config.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "ops/ops_json.h"

static void
begin(struct ops_json *json, const char *key)
{
	if (json->needs_comma)
		api_buf_text(json->buf, ",");
	json->needs_comma = true;
	if (key == NULL)
		return;
	api_buf_text(json->buf, "\"");
	api_buf_text(json->buf, key);
	api_buf_text(json->buf, "\":");
}

void
ops_json_object(struct ops_json *json, const char *key)
{
	begin(json, key);
	api_buf_text(json->buf, "{");
	json->needs_comma = false;
}

void
ops_json_array(struct ops_json *json, const char *key)
{
	begin(json, key);
	api_buf_text(json->buf, "[");
	json->needs_comma = false;
}

void
ops_json_end_object(struct ops_json *json)
{
	api_buf_text(json->buf, "}");
	json->needs_comma = true;
}

void
ops_json_end_array(struct ops_json *json)
{
	api_buf_text(json->buf, "]");
	json->needs_comma = true;
}

void
ops_json_u64(struct ops_json *json, const char *key, uint64_t value)
{
	begin(json, key);
	api_buf_u64(json->buf, value);
}

void
ops_json_real(struct ops_json *json, const char *key, double value)
{
	if (!isfinite(value)) {
		ops_json_null(json, key);
		return;
	}
	begin(json, key);
	ops_json_number(json->buf, value);
}

void
ops_json_number(struct api_buf *buf, double value)
{
	char text[400];
	size_t len;

	len = (size_t)snprintf(text, sizeof(text), "%.6f", value);
	while (text[len - 1] == '0')
		len--;
	if (text[len - 1] == '.')
		len--;
	api_buf_bytes(buf, text, len);
}

void
ops_json_text(struct ops_json *json, const char *key, const char *value)
{
	if (value == NULL) {
		ops_json_null(json, key);
		return;
	}
	begin(json, key);
	api_buf_text(json->buf, "\"");
	api_buf_json(json->buf, (struct api_slice){value, strlen(value)});
	api_buf_text(json->buf, "\"");
}

void
ops_json_bool(struct ops_json *json, const char *key, bool value)
{
	begin(json, key);
	api_buf_text(json->buf, value ? "true" : "false");
}

void
ops_json_null(struct ops_json *json, const char *key)
{
	begin(json, key);
	api_buf_text(json->buf, "null");
}

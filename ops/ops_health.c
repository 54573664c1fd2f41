#include "config.h"

#include <string.h>

#include "api/api_health.h"
#include "ops/ops_health.h"

enum MHD_Result
ops_health_livez(const struct ops_request *request)
{
	struct api_reply reply;

	api_health_livez(&reply);
	return ops_http_reply(request, &reply);
}

static bool
find_verbose(void *arg, const char *key, const char *value, size_t len)
{
	(void)value;
	(void)len;
	*(bool *)arg |= strcmp(key, "verbose") == 0;
	return true;
}

enum MHD_Result
ops_health_readyz(const struct ops_request *request)
{
	const struct api api = {
	    .board = request->options->board,
	    .version = request->options->version,
	};
	struct api_buf buf = {0};
	struct api_slice query = {0};
	struct api_reply reply;
	enum MHD_Result result;
	bool is_verbose = false;

	(void)!ops_http_arguments(request, find_verbose, &is_verbose);
	if (is_verbose)
		query = API_SLICE("verbose");
	api_health_readyz(&api, query, true, &buf, &reply);
	result = ops_http_reply(request, &reply);
	api_buf_fini(&buf);
	return result;
}

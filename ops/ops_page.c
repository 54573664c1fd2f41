/*
 * The dashboard's page, which is a part of the program.
 *
 * What it shows has passed through clients' hands (a route, a sentence of the
 * database), and a mistake in its script must not become a way in.  So the page
 * may do next to nothing: run the one script and use the one style that carry
 * this answer's nonce, connect to where it came from, and not stand in a frame.
 * A nonce is used once; without random bytes there is no page.
 */
#include "config.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#include "ops/ops_page.h"

#define MARK	    "@NONCE@"
#define NONCE_BYTES 16
#define NONCE_TEXT  (2 * NONCE_BYTES + 1)

static int
nonce_make(char nonce[NONCE_TEXT])
{
	unsigned char bytes[NONCE_BYTES];

	if (getrandom(bytes, sizeof(bytes), GRND_NONBLOCK) !=
	    (ssize_t)sizeof(bytes))
		return -1;
	for (size_t i = 0; i < sizeof(bytes); i++)
		snprintf(nonce + 2 * i, 3, "%02x", bytes[i]);
	return 0;
}

/* A copy with the nonce in its places; NULL without memory. */
static char *
page_make(const char *nonce)
{
	struct api_buf buf = {0};
	const char *at = ops_page_html, *mark;
	char *page;

	while ((mark = strstr(at, MARK)) != NULL) {
		api_buf_bytes(&buf, at, (size_t)(mark - at));
		api_buf_text(&buf, nonce);
		at = mark + strlen(MARK);
	}
	api_buf_text(&buf, at);
	page = buf.failed ? NULL : strndup(buf.data, buf.len);
	api_buf_fini(&buf);
	return page;
}

static void
add_headers(struct MHD_Response *response, const char *nonce)
{
	char policy[512];

	snprintf(policy, sizeof(policy),
	    "default-src 'none'; script-src 'nonce-%s'; style-src 'nonce-%s';"
	    " connect-src 'self'; img-src data:; base-uri 'none';"
	    " form-action 'none'; frame-ancestors 'none'",
	    nonce, nonce);
	MHD_add_response_header(response, "Content-Security-Policy", policy);
	MHD_add_response_header(response, "X-Content-Type-Options", "nosniff");
	MHD_add_response_header(response, "Referrer-Policy", "no-referrer");
}

enum MHD_Result
ops_page(const struct ops_request *request)
{
	struct MHD_Response *response = NULL;
	char nonce[NONCE_TEXT], *page = NULL;

	if (nonce_make(nonce) == 0)
		page = page_make(nonce);
	if (page == NULL)
		return ops_http_problem(request, MHD_HTTP_SERVICE_UNAVAILABLE,
		    "The page cannot be made now.");
	response = MHD_create_response_from_buffer(
	    strlen(page), page, MHD_RESPMEM_MUST_FREE);
	if (response != NULL)
		add_headers(response, nonce);
	else
		free(page);
	return ops_http_answer(
	    request, MHD_HTTP_OK, "text/html; charset=utf-8", response);
}

/*
 * Three questions to each request.
 *
 * THE NAME: a browser on this machine can be made to think that a foreign
 * page's name is 127.0.0.1 (DNS rebinding), and then the page's scripts read
 * our answers.  Such a request names the page in Host.  So who comes from this
 * machine over TCP has to address us as an IP address or localhost.
 *
 * THE PAGE: any page can make a browser send a POST to us, without reading the
 * answer.  Browsers say in Origin whose page it was; a change is refused when
 * that is not the host asked for.  Programs send no Origin.
 *
 * THE TOKEN: changes from other machines need it.  It is compared in a time
 * that depends on the length of what was sent alone, and never logged.
 */
#include "config.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>

#include "ops/ops_guard.h"

/* ---- the rules */

/* The host's name without its port into name; false: it is too long. */
static bool
host_name(const char *host, char *name, size_t bytes)
{
	size_t len;

	if (host[0] == '[') {
		host++;
		len = strcspn(host, "]");
	} else {
		len = strcspn(host, ":");
	}
	if (len >= bytes)
		return false;
	memcpy(name, host, len);
	name[len] = '\0';
	return true;
}

static bool
is_own_name(const char *host)
{
	unsigned char address[sizeof(struct in6_addr)];
	char name[INET6_ADDRSTRLEN];

	if (host == NULL || !host_name(host, name, sizeof(name)))
		return false;
	return strcasecmp(name, "localhost") == 0 ||
	       inet_pton(AF_INET, name, address) == 1 ||
	       inet_pton(AF_INET6, name, address) == 1;
}

/* Is the page of that origin (RFC 6454: "null" or scheme://host[:port]) one of
 * ours?  A proxy may have taken TLS off. */
static bool
is_own_page(const char *origin, const char *host)
{
	static const char *const schemes[] = {"http://", "https://"};

	for (size_t i = 0; host != NULL && i < SHM_ARRAY_LEN(schemes); i++) {
		size_t len = strlen(schemes[i]);

		if (strncmp(origin, schemes[i], len) == 0 &&
		    strcasecmp(origin + len, host) == 0)
			return true;
	}
	return false;
}

static bool
is_token(const char *authorization, const char *token)
{
	static const char scheme[] = "Bearer ";
	size_t token_len = strlen(token), len;
	volatile unsigned char difference = 0;
	const char *given;

	if (authorization == NULL ||
	    strncasecmp(authorization, scheme, sizeof(scheme) - 1) != 0)
		return false;
	given = authorization + sizeof(scheme) - 1;
	given += strspn(given, " ");
	len = strlen(given);
	for (size_t i = 0; i < len; i++)
		difference |=
		    (unsigned char)(given[i] ^ token[i % (token_len + 1)]);
	return len == token_len && difference == 0;
}

enum ops_guard_verdict
ops_guard_judge(const struct ops_guard_facts *facts)
{
	if (facts->is_loopback && !is_own_name(facts->host))
		return OPS_GUARD_HOST;
	if (!facts->is_change)
		return OPS_GUARD_PASS;
	if (facts->origin != NULL && !is_own_page(facts->origin, facts->host))
		return OPS_GUARD_ORIGIN;
	if (facts->site != NULL && strcmp(facts->site, "same-origin") != 0 &&
	    strcmp(facts->site, "none") != 0)
		return OPS_GUARD_ORIGIN;
	if (facts->is_unix || facts->is_loopback)
		return OPS_GUARD_PASS;
	if (facts->token[0] == '\0')
		return OPS_GUARD_NO_TOKEN;
	return is_token(facts->authorization, facts->token) ? OPS_GUARD_PASS
							    : OPS_GUARD_TOKEN;
}

/* ---- the request */

static bool
is_loopback(const struct sockaddr *peer)
{
	static const unsigned char mapped[] = {
	    0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 127};
	const struct sockaddr_in6 *six = (const struct sockaddr_in6 *)peer;
	const struct sockaddr_in *four = (const struct sockaddr_in *)peer;

	if (peer->sa_family == AF_INET)
		return ntohl(four->sin_addr.s_addr) >> 24 == 127;
	return peer->sa_family == AF_INET6 &&
	       (IN6_IS_ADDR_LOOPBACK(&six->sin6_addr) ||
		   memcmp(&six->sin6_addr, mapped, sizeof(mapped)) == 0);
}

static const char *
field(const struct ops_request *request, const char *name)
{
	return MHD_lookup_connection_value(
	    request->connection, MHD_HEADER_KIND, name);
}

static enum ops_guard_verdict
judge(const struct ops_request *request, const char *method)
{
	const union MHD_ConnectionInfo *info = MHD_get_connection_info(
	    request->connection, MHD_CONNECTION_INFO_CLIENT_ADDRESS);
	struct ops_guard_facts facts = {
	    .is_change =
		strcmp(method, "GET") != 0 && strcmp(method, "HEAD") != 0,
	    .host = field(request, MHD_HTTP_HEADER_HOST),
	    .origin = field(request, MHD_HTTP_HEADER_ORIGIN),
	    .site = field(request, "Sec-Fetch-Site"),
	    .authorization = field(request, MHD_HTTP_HEADER_AUTHORIZATION),
	    .token = request->options->admin_token,
	};

	/* Of whom nothing is known is another machine. */
	if (info != NULL && info->client_addr != NULL) {
		facts.is_unix = info->client_addr->sa_family == AF_UNIX;
		facts.is_loopback = is_loopback(info->client_addr);
	}
	return ops_guard_judge(&facts);
}

bool
ops_guard_pass(const struct ops_request *request, const char *method,
    enum MHD_Result *result)
{
	switch (judge(request, method)) {
	case OPS_GUARD_PASS:
		return true;
	case OPS_GUARD_HOST:
		*result = ops_http_problem(request, MHD_HTTP_FORBIDDEN,
		    "From this machine, ask for an IP address or localhost.");
		break;
	case OPS_GUARD_ORIGIN:
		*result = ops_http_problem(request, MHD_HTTP_FORBIDDEN,
		    "A page of another site may change nothing here.");
		break;
	case OPS_GUARD_NO_TOKEN:
		*result = ops_http_problem(request, MHD_HTTP_FORBIDDEN,
		    "Only this machine may change something here: the setting "
		    "admin_token is empty.");
		break;
	case OPS_GUARD_TOKEN:
		*result = ops_http_unauthorized(request);
		break;
	}
	return false;
}

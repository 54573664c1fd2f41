/*
 * How ops connects to the database: parameters, back-off, and the words for
 * what went wrong.
 *
 * SECRETS: what libpq says of a connection string that it cannot use may quote
 * it and is never shown; what it says of servers is.
 */
#include "config.h"

#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#include "api/api_slice.h"
#include "ops/ops_connect.h"

#define BACKOFF_MIN_MS 100
#define BACKOFF_MAX_MS 5000

#define SECRET_PARAMETERS_MAX 5

uint64_t
ops_connect_random(void)
{
	uint64_t value;

	/* Only before the kernel's generator is ready does this fail. */
	if (getrandom(&value, sizeof(value), GRND_NONBLOCK) != sizeof(value))
		value = shm_clock_us() * UINT64_C(0x9e3779b97f4a7c15);
	return value;
}

uint64_t
ops_connect_backoff_us(uint32_t failures)
{
	uint64_t ms = BACKOFF_MIN_MS;

	while (failures-- > 1 && ms < BACKOFF_MAX_MS)
		ms *= 2;
	if (ms > BACKOFF_MAX_MS)
		ms = BACKOFF_MAX_MS;
	return ms * 500 + ops_connect_random() % (ms * 500);
}

void
ops_connect_reason(char reason[OPS_CONNECT_REASON_BYTES], const char *text)
{
	size_t len = 0, points;

	for (; *text != '\0' && len < OPS_CONNECT_REASON_BYTES - 1; text++) {
		if ((unsigned char)*text > ' ' && *text != 0x7f)
			reason[len++] = *text;
		else if (len > 0 && reason[len - 1] != ' ')
			reason[len++] = ' ';
	}
	while (len > 0 && reason[len - 1] == ' ')
		len--;
	reason[len] = '\0';
	if (api_utf8_is_valid((struct api_slice){reason, len}, &points))
		return;
	for (size_t i = 0; i < len; i++)
		if ((unsigned char)reason[i] >= 0x80)
			reason[i] = '?';
}

/* What stands before dbname gives way to the string, what stands behind it
 * does not.  GSS negotiation asks name servers and key servers. */
static PGconn *
start(const char *conninfo, PQconninfoOption *secret)
{
	const char *keyword[10 + SECRET_PARAMETERS_MAX];
	const char *value[10 + SECRET_PARAMETERS_MAX];
	uint32_t count = 0;

#define PARAMETER(key, text) (keyword[count] = (key), value[count++] = (text))
	PARAMETER("fallback_application_name", "booksd ops");
	PARAMETER("keepalives_idle", "5");
	PARAMETER("keepalives_interval", "2");
	PARAMETER("keepalives_count", "3");
	PARAMETER("tcp_user_timeout", "5000");
	if (getenv("PGTARGETSESSIONATTRS") == NULL)
		PARAMETER("target_session_attrs", "read-write");
	PARAMETER("dbname", conninfo);
	for (; secret != NULL && secret->keyword != NULL; secret++)
		if (secret->val != NULL && count < 6 + SECRET_PARAMETERS_MAX)
			PARAMETER(secret->keyword, secret->val);
	PARAMETER("client_encoding", "UTF8");
	PARAMETER("gssencmode", "disable");
	PARAMETER(NULL, NULL);
#undef PARAMETER
	SHM_ASSERT(count <= SHM_ARRAY_LEN(keyword));
	return PQconnectStartParams(keyword, value, 1);
}

PGconn *
ops_connect_start(const char *conninfo, const char *secret)
{
	PQconninfoOption *options =
	    secret[0] == '\0' ? NULL : PQconninfoParse(secret, NULL);
	PGconn *conn = start(conninfo, options);

	PQconninfoFree(options);
	return conn;
}

const char *
ops_connect_refused(const PGconn *conn)
{
	const char *message = PQerrorMessage(conn);

	if (strncmp(message, "connection to server", 20) == 0 ||
	    strncmp(message, "could not translate host name", 29) == 0)
		return NULL;
	return "the setting database cannot be used";
}

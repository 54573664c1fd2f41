/*
 * Secrets Manager's answers.
 *
 * A secret of a database is a JSON object as text: {"username", "password"}
 * as RDS makes it by itself, and with "host", "port", "dbname" and "engine"
 * when it was attached to an instance.  Other members are other people's.
 *
 * An error says its kind in "__type", sometimes behind a '#'.  Nothing of an
 * answer but that kind goes into a log: messages quote what was sent.
 */
#include "config.h"

#include <ctype.h>
#include <inttypes.h>
#include <jansson.h>
#include <stdio.h>
#include <string.h>

#include "ops/ops_secret_text.h"

#define SKEW_S 60 /* less is nobody's fault */

static void
verdict_set(struct ops_secret_verdict *verdict, enum ops_secret_fault fault,
    const char *reason)
{
	verdict->fault = fault;
	snprintf(verdict->reason, sizeof(verdict->reason), "%s", reason);
}

/* ---- the secret */

/* " keyword='value'" with what libpq wants escaped.  False: too long. */
static bool
append(char text[SHM_SECRET_BYTES_MAX], const char *keyword, const char *value)
{
	size_t len = strlen(text);
	const size_t bytes = SHM_SECRET_BYTES_MAX;
	int added = snprintf(
	    text + len, bytes - len, "%s%s='", len > 0 ? " " : "", keyword);

	len += (size_t)added;
	for (; *value != '\0' && len + 4 < bytes; value++) {
		if (*value == '\'' || *value == '\\')
			text[len++] = '\\';
		text[len++] = *value;
	}
	if (*value != '\0' || len + 2 > bytes)
		return false;
	text[len++] = '\'';
	text[len] = '\0';
	return true;
}

static const char *
member(const json_t *secret, const char *name)
{
	const char *value = json_string_value(json_object_get(secret, name));

	return value != NULL && value[0] != '\0' ? value : NULL;
}

/* A number, or a text; false: neither, nor absent. */
static bool
append_port(char text[SHM_SECRET_BYTES_MAX], const json_t *secret)
{
	const json_t *port = json_object_get(secret, "port");
	char number[24];

	if (port == NULL || json_is_null(port))
		return true;
	if (json_is_string(port))
		return append(text, "port", json_string_value(port));
	if (!json_is_integer(port))
		return false;
	snprintf(number, sizeof(number), "%" PRId64,
	    (int64_t)json_integer_value(port));
	return append(text, "port", number);
}

static bool
is_postgres(const json_t *secret)
{
	const char *engine = member(secret, "engine");

	return engine == NULL || strcasestr(engine, "postgres") != NULL;
}

/* NULL: text is complete. */
static const char *
read_secret(const json_t *secret, char text[SHM_SECRET_BYTES_MAX])
{
	static const char *const optional[][2] = {
	    {"host", "host"}, {"dbname", "dbname"}};
	const char *user = member(secret, "username");
	const char *password = member(secret, "password");
	bool fits;

	if (!json_is_object(secret))
		return "the secret is no JSON object with username and "
		       "password";
	if (user == NULL || password == NULL)
		return "the secret lacks username or password";
	if (!is_postgres(secret))
		return "the secret is of another engine than PostgreSQL";
	fits = append(text, "user", user) && append(text, "password", password);
	for (size_t i = 0; i < SHM_ARRAY_LEN(optional); i++) {
		const char *value = member(secret, optional[i][0]);

		if (value != NULL)
			fits = fits && append(text, optional[i][1], value);
	}
	if (!fits || !append_port(text, secret))
		return "the secret is too long, or its port is no number";
	return NULL;
}

static void
judge_value(const struct ops_curl_answer *answer,
    struct ops_secret_verdict *verdict, char text[SHM_SECRET_BYTES_MAX])
{
	json_t *root = json_loadb(answer->body, answer->body_len, 0, NULL);
	const json_t *string = json_object_get(root, "SecretString");
	json_t *secret = json_loadb(
	    json_string_value(string), json_string_length(string), 0, NULL);
	const char *wrong;

	if (!json_is_object(root))
		verdict_set(verdict, OPS_SECRET_LATER,
		    "the answer is not of Secrets Manager: is the endpoint "
		    "right?");
	else if (string == NULL)
		verdict_set(verdict, OPS_SECRET_ADMIN,
		    "the secret is binary, and a JSON text is needed");
	else if ((wrong = read_secret(secret, text)) != NULL)
		verdict_set(verdict, OPS_SECRET_ADMIN, wrong);
	json_decref(secret);
	json_decref(root);
}

/* ---- errors */

static const struct {
	const char *type;
	enum ops_secret_fault fault;
	const char *reason;
} errors[] = {
    {"AccessDeniedException", OPS_SECRET_ADMIN,
	"the role may not read it: allow secretsmanager:GetSecretValue on it "
	"(and kms:Decrypt on its key) in the task role"},
    {"DecryptionFailure", OPS_SECRET_ADMIN,
	"its key cannot be used: allow kms:Decrypt on the secret's key in the "
	"task role"},
    {"ExpiredTokenException", OPS_SECRET_KEYS,
	"the credentials have expired: others are fetched"},
    {"InternalServiceError", OPS_SECRET_LATER, "Secrets Manager has failed"},
    {"InvalidClientTokenId", OPS_SECRET_KEYS,
	"AWS does not know the credentials: are they of this account and "
	"region?"},
    {"InvalidParameterException", OPS_SECRET_ADMIN,
	"database_secret is not a name or an ARN"},
    {"InvalidRequestException", OPS_SECRET_ADMIN,
	"it is marked for deletion, or has no value yet"},
    {"InvalidSignatureException", OPS_SECRET_KEYS,
	"the signature is wrong: the secret access key does not belong to the "
	"access key id, or a proxy has changed the request"},
    {"LimitExceededException", OPS_SECRET_THROTTLED, "too many requests"},
    {"RequestLimitExceeded", OPS_SECRET_THROTTLED, "too many requests"},
    {"ResourceNotFoundException", OPS_SECRET_ADMIN,
	"there is no such secret in this region: compare database_secret and "
	"AWS_REGION with it"},
    {"ThrottlingException", OPS_SECRET_THROTTLED, "too many requests"},
    {"TooManyRequestsException", OPS_SECRET_THROTTLED, "too many requests"},
    {"UnrecognizedClientException", OPS_SECRET_KEYS,
	"AWS does not know the credentials: are they of this account and "
	"region?"},
};

/* Letters only: it goes into the log. */
static void
copy_type(char to[OPS_SECRET_TYPE_BYTES], const char *type)
{
	const char *name = type == NULL ? "" : type;
	size_t len = 0;

	if (strchr(name, '#') != NULL)
		name = strchr(name, '#') + 1;
	while (len < OPS_SECRET_TYPE_BYTES - 1 && isalnum((unsigned char)*name))
		to[len++] = *name++;
	to[len] = '\0';
}

static bool
is_skew(const char *message)
{
	return message != NULL &&
	       (strncmp(message, "Signature expired", 17) == 0 ||
		   strncmp(message, "Signature not yet current", 25) == 0);
}

static void
judge_skew(const struct ops_curl_answer *answer, int64_t now_s,
    struct ops_secret_verdict *verdict)
{
	int64_t ahead = answer->date_s == 0 ? 0 : now_s - answer->date_s;

	verdict->fault = OPS_SECRET_ADMIN;
	if (ahead > SKEW_S || ahead < -SKEW_S)
		snprintf(verdict->reason, sizeof(verdict->reason),
		    "the clock of this machine is %" PRId64
		    " s %s of AWS's: set it",
		    ahead > 0 ? ahead : -ahead, ahead > 0 ? "ahead" : "behind");
	else
		verdict_set(verdict, OPS_SECRET_ADMIN,
		    "the clock of this machine is not AWS's: set it");
}

static void
judge_error(const struct ops_curl_answer *answer, int64_t now_s,
    struct ops_secret_verdict *verdict)
{
	json_t *root = json_loadb(answer->body, answer->body_len, 0, NULL);
	const char *message =
	    json_string_value(json_object_get(root, "message"));
	size_t i = 0;

	if (message == NULL)
		message = json_string_value(json_object_get(root, "Message"));
	copy_type(
	    verdict->type, json_string_value(json_object_get(root, "__type")));
	while (i < SHM_ARRAY_LEN(errors) &&
	       strcmp(verdict->type, errors[i].type) != 0)
		i++;
	if (is_skew(message))
		judge_skew(answer, now_s, verdict);
	else if (i < SHM_ARRAY_LEN(errors))
		verdict_set(verdict, errors[i].fault, errors[i].reason);
	else if (answer->status == 429)
		verdict_set(verdict, OPS_SECRET_THROTTLED, "too many requests");
	else if (answer->status >= 500)
		verdict_set(
		    verdict, OPS_SECRET_LATER, "Secrets Manager has failed");
	else
		verdict_set(verdict, OPS_SECRET_ADMIN,
		    "Secrets Manager does not answer the question");
	json_decref(root);
}

void
ops_secret_judge(const struct ops_curl_answer *answer, int64_t now_s,
    struct ops_secret_verdict *verdict, char text[SHM_SECRET_BYTES_MAX])
{
	*verdict = (struct ops_secret_verdict){.fault = OPS_SECRET_OK};
	text[0] = '\0';
	if (answer->status == 0) {
		verdict->fault = OPS_SECRET_LATER;
		snprintf(verdict->reason, sizeof(verdict->reason),
		    "Secrets Manager cannot be reached: %s", answer->reason);
	} else if (answer->status == 200) {
		judge_value(answer, verdict, text);
	} else {
		judge_error(answer, now_s, verdict);
	}
	if (verdict->fault != OPS_SECRET_OK)
		explicit_bzero(text, SHM_SECRET_BYTES_MAX);
}

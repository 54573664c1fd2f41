/*
 * Keys, region and endpoint of AWS.
 *
 * The environment is read each time, not kept: a token file is replaced by
 * its owner, and so is the shared file.  Values that go into a request's
 * fields are refused when they have control bytes in them.
 */
#include "config.h"

#include <ctype.h>
#include <errno.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "ops/ops_aws.h"

#define ECS_ADDRESS	  "http://169.254.170.2"
#define FRESH_S		  300
#define FILE_LINE_BYTES	  (OPS_AWS_TOKEN_BYTES + 64)
#define AUTHORIZATION_KEY "Authorization: "

/* An empty variable is one that is not set. */
static const char *
variable(const char *name)
{
	const char *value = getenv(name);

	return value != NULL && value[0] != '\0' ? value : NULL;
}

static bool
is_printable(const char *text)
{
	for (; *text != '\0'; text++)
		if ((unsigned char)*text < 0x20 || *text == 0x7f)
			return false;
	return true;
}

/* False: it does not fit, or is no text for a field. */
static bool
copy(char *to, size_t bytes, const char *text)
{
	if (text == NULL || strlen(text) >= bytes || !is_printable(text))
		return false;
	memcpy(to, text, strlen(text) + 1);
	return true;
}

static enum ops_aws_result
failed(char reason[OPS_AWS_REASON_BYTES], const char *text)
{
	snprintf(reason, OPS_AWS_REASON_BYTES, "%s", text);
	return OPS_AWS_FAILED;
}

/* ---- the environment */

static bool
take_keys(struct ops_aws_keys *keys, const char *id, const char *secret,
    const char *token)
{
	keys->expires_s = 0;
	return copy(keys->id, sizeof(keys->id), id) &&
	       copy(keys->secret, sizeof(keys->secret), secret) &&
	       copy(keys->token, sizeof(keys->token),
		   token == NULL ? "" : token) &&
	       keys->id[0] != '\0' && keys->secret[0] != '\0';
}

/* ---- the container endpoint */

static size_t
host_len(const char *host)
{
	return host[0] == '[' ? strcspn(host, "]") + 1 : strcspn(host, ":/?#");
}

bool
ops_aws_is_near(const char *url)
{
	static const char *const near[] = {"localhost", "[::1]",
	    "169.254.170.2", "169.254.170.23", "[fd00:ec2::23]"};
	const char *host;
	size_t len;

	if (strncasecmp(url, "https://", 8) == 0)
		return true;
	if (strncasecmp(url, "http://", 7) != 0)
		return false;
	host = url + 7;
	if (memchr(host, '@', strcspn(host, "/?#")) != NULL)
		return false;
	len = host_len(host);
	if (strncmp(host, "127.", 4) == 0 && strspn(host, "0123456789.") == len)
		return true;
	for (size_t i = 0; i < SHM_ARRAY_LEN(near); i++)
		if (strlen(near[i]) == len &&
		    strncasecmp(host, near[i], len) == 0)
			return true;
	return false;
}

static bool
read_token_file(const char *path, char *token, size_t bytes)
{
	FILE *file = fopen(path, "re");
	size_t len;

	if (file == NULL)
		return false;
	len = fread(token, 1, bytes - 1, file);
	fclose(file);
	token[len] = '\0';
	token[strcspn(token, "\r\n")] = '\0';
	return len > 0;
}

static bool
read_authorization(struct ops_aws_ask *ask)
{
	const char *path = variable("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE");
	const char *token = variable("AWS_CONTAINER_AUTHORIZATION_TOKEN");
	const size_t key_len = strlen(AUTHORIZATION_KEY);
	char *value = ask->authorization + key_len;
	const size_t bytes = sizeof(ask->authorization) - key_len;

	ask->authorization[0] = '\0';
	if (path == NULL && token == NULL)
		return true;
	if (path != NULL ? !read_token_file(path, value, bytes)
			 : !copy(value, bytes, token))
		return false;
	memcpy(ask->authorization, AUTHORIZATION_KEY, key_len);
	return value[0] != '\0' && is_printable(ask->authorization);
}

static enum ops_aws_result
find_endpoint(struct ops_aws_ask *ask, const char *relative, const char *full,
    char reason[OPS_AWS_REASON_BYTES])
{
	int len;

	if (relative != NULL)
		len = snprintf(ask->url, sizeof(ask->url), ECS_ADDRESS "%s%s",
		    relative[0] == '/' ? "" : "/", relative);
	else
		len = snprintf(ask->url, sizeof(ask->url), "%s", full);
	if (len >= (int)sizeof(ask->url) || !is_printable(ask->url))
		return failed(
		    reason, "AWS_CONTAINER_CREDENTIALS_... is not an address");
	if (!ops_aws_is_near(ask->url))
		return failed(reason,
		    "AWS_CONTAINER_CREDENTIALS_FULL_URI has to be https, or "
		    "of this machine: 127.0.0.1, [::1], 169.254.170.2 or .23");
	if (!read_authorization(ask))
		return failed(reason,
		    "AWS_CONTAINER_AUTHORIZATION_TOKEN or its file cannot be "
		    "used");
	return OPS_AWS_ASK;
}

static bool
is_success(long status)
{
	return status >= 200 && status < 300;
}

static bool
take_json(struct ops_aws_keys *keys, const json_t *root)
{
	const char *expires =
	    json_string_value(json_object_get(root, "Expiration"));

	if (!take_keys(keys,
		json_string_value(json_object_get(root, "AccessKeyId")),
		json_string_value(json_object_get(root, "SecretAccessKey")),
		json_string_value(json_object_get(root, "Token"))))
		return false;
	keys->expires_s = expires == NULL ? 0 : ops_aws_time(expires);
	return expires == NULL || keys->expires_s > 0;
}

bool
ops_aws_read(struct ops_aws_keys *keys, const struct ops_curl_answer *answer,
    char reason[OPS_AWS_REASON_BYTES])
{
	json_t *root;
	bool ok;

	if (answer->status == 0 || !is_success(answer->status)) {
		if (answer->status == 0)
			snprintf(reason, OPS_AWS_REASON_BYTES,
			    "the container credentials endpoint: %s",
			    answer->reason);
		else
			snprintf(reason, OPS_AWS_REASON_BYTES,
			    "the container credentials endpoint answered %ld "
			    "(has the task a task role?)",
			    answer->status);
		return false;
	}
	root = json_loadb(answer->body, answer->body_len, 0, NULL);
	ok = take_json(keys, root);
	json_decref(root);
	if (!ok)
		(void)failed(reason,
		    "the container credentials endpoint's answer has no keys");
	return ok;
}

/* ---- the shared file */

struct profile {
	char id[256];
	char secret[256];
	char token[OPS_AWS_TOKEN_BYTES];
};

static void
profile_line(struct profile *profile, char *line)
{
	static const char *const names[] = {
	    "aws_access_key_id", "aws_secret_access_key", "aws_session_token"};
	char *const fields[] = {profile->id, profile->secret, profile->token};
	const size_t bytes[] = {sizeof(profile->id), sizeof(profile->secret),
	    sizeof(profile->token)};
	char *name = line + strspn(line, " \t"), *value = strchr(name, '=');
	char *end;

	if (value == NULL)
		return;
	for (end = value; end > name && isspace((unsigned char)end[-1]); end--)
		;
	*end = '\0';
	value++;
	value += strspn(value, " \t");
	for (end = strchr(value, '\0');
	     end > value && isspace((unsigned char)end[-1]); end--)
		end[-1] = '\0';
	for (size_t i = 0; i < SHM_ARRAY_LEN(names); i++)
		if (strcmp(name, names[i]) == 0)
			(void)!copy(fields[i], bytes[i], value);
}

/* "[name]" or "[profile name]" */
static bool
is_section(const char *line, const char *wanted)
{
	size_t len = strlen(wanted);

	line++;
	line += strspn(line, " \t");
	if (strncmp(line, "profile ", 8) == 0)
		line += 8 + strspn(line + 8, " \t");
	return strncmp(line, wanted, len) == 0 &&
	       line[len + strspn(line + len, " \t")] == ']';
}

static bool
read_profile(FILE *file, const char *wanted, struct profile *profile)
{
	char line[FILE_LINE_BYTES];
	bool is_ours = false, was_there = false;

	while (fgets(line, sizeof(line), file) != NULL) {
		if (line[0] == '[') {
			is_ours = is_section(line, wanted);
			was_there = was_there || is_ours;
		} else if (is_ours && line[0] != '#' && line[0] != ';') {
			profile_line(profile, line);
		}
	}
	explicit_bzero(line, sizeof(line));
	return was_there;
}

static FILE *
open_shared(void)
{
	const char *path = variable("AWS_SHARED_CREDENTIALS_FILE");
	const char *home = variable("HOME");
	char text[4096];

	if (path != NULL)
		return fopen(path, "re");
	if (home == NULL)
		return NULL;
	snprintf(text, sizeof(text), "%s/.aws/credentials", home);
	return fopen(text, "re");
}

static enum ops_aws_result
find_shared(struct ops_aws_keys *keys, char reason[OPS_AWS_REASON_BYTES])
{
	const char *wanted = variable("AWS_PROFILE");
	struct profile profile = {.id = ""};
	FILE *file = open_shared();
	bool was_there, ok;

	if (file == NULL)
		return failed(reason,
		    "no AWS credentials: give the task a task role, or set "
		    "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY");
	if (wanted == NULL)
		wanted = "default";
	was_there = read_profile(file, wanted, &profile);
	fclose(file);
	ok = was_there &&
	     take_keys(keys, profile.id, profile.secret, profile.token);
	explicit_bzero(&profile, sizeof(profile));
	if (ok)
		return OPS_AWS_OK;
	snprintf(reason, OPS_AWS_REASON_BYTES,
	    "the shared credentials file has no keys for the profile %.64s",
	    is_printable(wanted) ? wanted : "of AWS_PROFILE");
	return OPS_AWS_FAILED;
}

/* ---- the room's side */

enum ops_aws_result
ops_aws_find(struct ops_aws_keys *keys, struct ops_aws_ask *ask,
    char reason[OPS_AWS_REASON_BYTES])
{
	const char *id = variable("AWS_ACCESS_KEY_ID");
	const char *secret = variable("AWS_SECRET_ACCESS_KEY");
	const char *relative =
	    variable("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI");
	const char *full = variable("AWS_CONTAINER_CREDENTIALS_FULL_URI");

	if (id != NULL && secret != NULL)
		return take_keys(
			   keys, id, secret, variable("AWS_SESSION_TOKEN"))
			   ? OPS_AWS_OK
			   : failed(reason,
				 "AWS_ACCESS_KEY_ID and its companions cannot "
				 "be used as they are");
	if (relative != NULL || full != NULL)
		return find_endpoint(ask, relative, full, reason);
	return find_shared(keys, reason);
}

bool
ops_aws_are_fresh(const struct ops_aws_keys *keys, int64_t now_s)
{
	return keys->id[0] != '\0' &&
	       (keys->expires_s == 0 || now_s < keys->expires_s - FRESH_S);
}

void
ops_aws_forget(struct ops_aws_keys *keys)
{
	explicit_bzero(keys, sizeof(*keys));
}

/* Letters, digits and '-': it becomes a part of a host's name. */
static bool
copy_region(const char *text, size_t len, char region[64])
{
	if (len == 0 || len >= 64)
		return false;
	for (size_t i = 0; i < len; i++)
		if (!isalnum((unsigned char)text[i]) && text[i] != '-')
			return false;
	memcpy(region, text, len);
	region[len] = '\0';
	return true;
}

bool
ops_aws_region(const char *arn, char region[64])
{
	static const char *const names[] = {"AWS_REGION", "AWS_DEFAULT_REGION"};

	/* arn:PARTITION:secretsmanager:REGION:ACCOUNT:secret:NAME */
	if (strncmp(arn, "arn:", 4) == 0) {
		for (int i = 0; i < 3 && arn != NULL; i++) {
			arn = strchr(arn, ':');
			arn = arn == NULL ? NULL : arn + 1;
		}
		return arn != NULL &&
		       copy_region(arn, strcspn(arn, ":"), region);
	}
	for (size_t i = 0; i < SHM_ARRAY_LEN(names); i++) {
		const char *value = variable(names[i]);

		if (value != NULL)
			return copy_region(value, strlen(value), region);
	}
	return false;
}

void
ops_aws_endpoint(const char *region, char url[OPS_AWS_URL_BYTES])
{
	const char *set = variable("AWS_ENDPOINT_URL_SECRETS_MANAGER");

	if (set == NULL)
		set = variable("AWS_ENDPOINT_URL");
	if (set != NULL)
		snprintf(url, OPS_AWS_URL_BYTES, "%s%s", set,
		    set[strlen(set) - 1] == '/' ? "" : "/");
	else
		snprintf(url, OPS_AWS_URL_BYTES,
		    "https://secretsmanager.%s.amazonaws.com%s/", region,
		    strncmp(region, "cn-", 3) == 0 ? ".cn" : "");
}

int64_t
ops_aws_time(const char *text)
{
	struct tm tm = {.tm_sec = 0};
	const char *rest = strptime(text, "%Y-%m-%dT%H:%M:%S", &tm);

	if (rest == NULL)
		return 0;
	if (*rest == '.')
		rest += 1 + strspn(rest + 1, "0123456789");
	return strcmp(rest, "Z") == 0 ? (int64_t)timegm(&tm) : 0;
}

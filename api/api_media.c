/*
 * Content negotiation, as much of it as one JSON format needs.
 *
 * Of all ranges in Accept that match application/json the most specific one
 * decides, and its weight 0 is a no.  A client that names
 * application/problem+json takes JSON, or its successes could not be
 * answered; unless it also says that it does not.
 *
 * Accept is a wish, so reading it is tolerant: an element that is no media
 * range is passed over, a parameter that is no weight is ignored, a weight
 * that is none counts as absent, and a field without a single range says as
 * much as no field.  Content-Type is a claim about bytes that will be parsed,
 * so reading it is strict.
 */
#include "config.h"

#include <strings.h>

#include "api/api_media.h"

#define WEIGHT_MAX 1000 /* a weight of 1, in thousandths */

enum specificity {
	NONE = 0,
	ANY,	 /* any type */
	ANY_APP, /* any application type */
	EXACT,
};

static bool
is_space(char c)
{
	return c == ' ' || c == '\t';
}

static struct api_slice
trim(struct api_slice text)
{
	while (text.len > 0 && is_space(text.data[0])) {
		text.data++;
		text.len--;
	}
	while (text.len > 0 && is_space(text.data[text.len - 1]))
		text.len--;
	return text;
}

static bool
is_word(struct api_slice text, const char *word)
{
	return text.len == strlen(word) &&
	       strncasecmp(text.data, word, text.len) == 0;
}

/*
 * Cut the piece before the next separator that is not inside a quoted string
 * off the front of *rest; *rest becomes what follows the separator, with data
 * NULL after the last piece.
 */
static struct api_slice
cut(struct api_slice *rest, char separator)
{
	struct api_slice piece = *rest;
	bool quoted = false;

	for (size_t i = 0; i < rest->len; i++) {
		char c = rest->data[i];

		if (c == '"') {
			quoted = !quoted;
		} else if (quoted && c == '\\') {
			i++; /* whatever it is, it does not end the string */
		} else if (!quoted && c == separator) {
			piece.len = i;
			rest->data += i + 1;
			rest->len -= i + 1;
			return trim(piece);
		}
	}
	*rest = (struct api_slice){NULL, 0};
	return trim(piece);
}

static bool
is_token(struct api_slice text)
{
	for (size_t i = 0; i < text.len; i++) {
		char c = text.data[i];

		if (c <= ' ' || c >= 127 ||
		    strchr("\"(),/:;<=>?@[\\]{}", c) != NULL)
			return false;
	}
	return text.len > 0;
}

/* "type/subtype" into its halves. */
static bool
split_type(
    struct api_slice range, struct api_slice *type, struct api_slice *subtype)
{
	*subtype = range;
	*type = cut(subtype, '/');
	return is_token(*type) && subtype->data != NULL && is_token(*subtype);
}

/* A weight in thousandths; what is none is an absent one. */
static int
weight_of(struct api_slice text)
{
	int weight, unit = WEIGHT_MAX;

	if (text.len == 0 || text.len > 5 ||
	    (text.data[0] != '0' && text.data[0] != '1') ||
	    (text.len > 1 && text.data[1] != '.'))
		return WEIGHT_MAX;
	weight = (text.data[0] - '0') * unit;
	for (size_t i = 2; i < text.len; i++) {
		if (text.data[i] < '0' || text.data[i] > '9')
			return WEIGHT_MAX;
		unit /= 10;
		weight += (text.data[i] - '0') * unit;
	}
	return weight <= WEIGHT_MAX ? weight : WEIGHT_MAX;
}

/* The weight among the parameters of one element of Accept. */
static int
range_weight(struct api_slice parameters)
{
	while (parameters.data != NULL) {
		struct api_slice value = cut(&parameters, ';');
		struct api_slice name = cut(&value, '=');

		if (is_word(name, "q") && value.data != NULL)
			return weight_of(trim(value));
	}
	return WEIGHT_MAX;
}

static enum specificity
range_specificity(struct api_slice type, struct api_slice subtype)
{
	if (is_word(type, "*"))
		return is_word(subtype, "*") ? ANY : NONE;
	if (!is_word(type, "application"))
		return NONE;
	if (is_word(subtype, "*"))
		return ANY_APP;
	return is_word(subtype, "json") ? EXACT : NONE;
}

struct api_media_accept
api_media_accept(struct api_slice accept)
{
	struct api_media_accept takes = {.json = true};
	int weight[EXACT + 1] = {-1, -1, -1, -1};
	bool has_range = false;

	if (accept.data == NULL || api_slice_is(accept, "*/*"))
		return takes; /* what most clients send */
	while (accept.data != NULL) {
		struct api_slice parameters = cut(&accept, ',');
		struct api_slice range = cut(&parameters, ';');
		struct api_slice type, subtype;
		enum specificity specificity;
		int q;

		if (is_word(range, "*"))
			range = API_SLICE("*/*"); /* some old clients' */
		if (!split_type(range, &type, &subtype))
			continue;
		has_range = true;
		q = range_weight(parameters);
		specificity = range_specificity(type, subtype);
		if (weight[specificity] < q)
			weight[specificity] = q;
		if (q > 0 && is_word(type, "application") &&
		    is_word(subtype, "problem+json"))
			takes.problem = true;
	}
	if (weight[EXACT] != -1)
		takes.json = weight[EXACT] > 0;
	else if (takes.problem || !has_range)
		takes.json = true;
	else if (weight[ANY_APP] != -1)
		takes.json = weight[ANY_APP] > 0;
	else
		takes.json = weight[ANY] > 0;
	return takes;
}

/* "json", or something that says that it is written in it. */
static bool
is_json_subtype(struct api_slice subtype)
{
	const struct api_slice suffix = API_SLICE("+json");

	if (is_word(subtype, "json"))
		return true;
	if (subtype.len <= suffix.len)
		return false;
	subtype.data += subtype.len - suffix.len;
	subtype.len = suffix.len;
	return is_word(subtype, suffix.data);
}

static bool
is_utf8_charset(struct api_slice value)
{
	return is_word(value, "utf-8") || is_word(value, "\"utf-8\"");
}

bool
api_media_is_json(struct api_slice content_type)
{
	struct api_slice type, subtype;

	if (content_type.data == NULL)
		return false;
	if (!split_type(cut(&content_type, ';'), &type, &subtype) ||
	    !is_word(type, "application") || !is_json_subtype(subtype))
		return false;
	while (content_type.data != NULL) {
		struct api_slice value = cut(&content_type, ';');
		struct api_slice name = cut(&value, '=');

		if (name.len == 0 && value.data == NULL)
			continue; /* RFC 9110 lets a parameter be empty */
		if (!is_token(name) || value.data == NULL)
			return false;
		if (is_word(name, "charset") && !is_utf8_charset(value))
			return false;
	}
	return true;
}

bool
api_media_is_identity(struct api_slice content_encoding)
{
	while (content_encoding.data != NULL) {
		struct api_slice coding = cut(&content_encoding, ',');

		if (coding.len > 0 && !is_word(coding, "identity"))
			return false;
	}
	return true;
}

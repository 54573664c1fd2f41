/*
 * What came back from booksd: the document, or why there is none.
 */
#include "config.h"

#include <stdlib.h>
#include <string.h>
#include <sysexits.h>

#include "ctl/ctl_answer.h"
#include "ctl/ctl_text.h"

/* The same document: such characters stand in strings only, where JSON knows
 * the same escape; line ends stand between. */
static void
print_json(const struct ctl_control_answer *answer)
{
	const char *body = answer->body, *end = body + answer->len;

	for (const char *at = body; at < end;) {
		const char *line_end = memchr(at, '\n', (size_t)(end - at));

		if (line_end == NULL)
			line_end = end;
		ctl_text_print(stdout, at, (size_t)(line_end - at));
		putchar('\n');
		at = line_end + 1;
	}
}

int
ctl_answer_no_sense(void)
{
	ctl_say("booksd's answer makes no sense: is it of another version?");
	return EX_PROTOCOL;
}

/* booksd says no and why, or it is not booksd that answers. */
static int
refused(const struct ctl_control_answer *answer, const json_t *root)
{
	const json_t *detail = json_object_get(root, "detail");

	if (!json_is_string(detail)) {
		ctl_say("the control socket answered with status %ld",
		    answer->status);
		return EX_PROTOCOL;
	}
	fflush(stdout);
	fprintf(stderr, "booksctl: booksd refused (%ld): ", answer->status);
	ctl_text_print(
	    stderr, json_string_value(detail), json_string_length(detail));
	fputc('\n', stderr);
	return answer->status == 503 ? EX_UNAVAILABLE : EX_PROTOCOL;
}

int
ctl_answer_get(
    const struct ctl_control_question *question, bool is_json, json_t **root)
{
	struct ctl_control_answer answer;
	json_t *got = NULL;
	int code = ctl_control_ask(question, &answer);

	*root = NULL;
	if (code != EX_OK)
		return code;
	if (answer.body != NULL)
		got = json_loadb(answer.body, answer.len, JSON_ALLOW_NUL, NULL);
	if (answer.status / 100 != 2) {
		code = refused(&answer, got);
	} else if (got == NULL) {
		code = ctl_answer_no_sense();
	} else if (is_json) {
		print_json(&answer);
	} else {
		*root = got;
		got = NULL;
	}
	json_decref(got);
	ctl_control_answer_fini(&answer);
	return code;
}

uint64_t
ctl_answer_figure(const json_t *object, const char *name)
{
	json_int_t value = json_integer_value(json_object_get(object, name));

	return value > 0 ? (uint64_t)value : 0;
}

double
ctl_answer_measure(const json_t *object, const char *name)
{
	return json_number_value(json_object_get(object, name));
}

const char *
ctl_answer_text(const json_t *object, const char *name)
{
	const char *text = json_string_value(json_object_get(object, name));

	return text != NULL ? text : "";
}

void
ctl_answer_print(const json_t *object, const char *name)
{
	const json_t *text = json_object_get(object, name);

	if (json_is_string(text))
		ctl_text_print(
		    stdout, json_string_value(text), json_string_length(text));
}

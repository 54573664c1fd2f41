/*
 * Questions to a running booksd, over its control socket.
 */
#ifndef CTL_CONTROL_H
#define CTL_CONTROL_H

#include "ctl/ctl.h"

struct ctl_control_answer {
	long status;
	char *body; /* followed by a 0; NULL: none */
	size_t len;
};

struct ctl_control_question {
	const char *path;   /* NULL: the socket of BOOKS_CONTROL_SOCKET, else
			       where booksd puts it by itself */
	const char *target; /* path and query */
	bool is_post;
	long timeout_s; /* 0: CTL_CONTROL_TIMEOUT_S */
};

/*
 * Ask; blocks, for the timeout at most.  EX_OK when there is an answer,
 * whatever its status, which the caller frees; or another exit code after
 * saying why.
 */
#define CTL_CONTROL_TIMEOUT_S 30
int ctl_control_ask(const struct ctl_control_question *question,
    struct ctl_control_answer *answer) SHM_MUSTCHECK;
void ctl_control_answer_fini(struct ctl_control_answer *answer);

/* text as a part of a query, percent-encoded; allocated, NULL without memory.
 */
char *ctl_control_escape(const char *text) SHM_MUSTCHECK;

#endif

/*
 * booksd's answers, judged: what every command that asks it needs.
 */
#ifndef CTL_ANSWER_H
#define CTL_ANSWER_H

#include <jansson.h>

#include "ctl/ctl_control.h"

/*
 * Ask, and read the answer.  EX_OK and *root (to json_decref()) when booksd did
 * what it was asked for; with is_json the answer was printed as it came, and
 * *root is NULL.  Another exit code after saying why not.
 */
int ctl_answer_get(const struct ctl_control_question *question, bool is_json,
    json_t **root) SHM_MUSTCHECK;

/* Says that the answer makes no sense; EX_PROTOCOL. */
int ctl_answer_no_sense(void);

/* Members of an object: 0, "" or -1 when they are not there or are of another
 * kind.  Texts are foreign bytes, borrowed. */
uint64_t ctl_answer_figure(const json_t *object, const char *name);
double ctl_answer_measure(const json_t *object, const char *name);
const char *ctl_answer_text(const json_t *object, const char *name);
void ctl_answer_print(const json_t *object, const char *name);

#endif

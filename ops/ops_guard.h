/*
 * Who may do what on the control socket and the admin listener.
 */
#ifndef OPS_GUARD_H
#define OPS_GUARD_H

#include "ops/ops_http.h"

/* What is known of a request; texts are NULL when a field is absent. */
struct ops_guard_facts {
	bool is_unix;	  /* the listener's file mode judges who gets there */
	bool is_loopback; /* TCP, and the peer is this machine */
	bool is_change;	  /* neither GET nor HEAD */
	const char *host;
	const char *origin;
	const char *site;	   /* Sec-Fetch-Site */
	const char *authorization; /* secret */
	const char *token;	   /* secret; "": nobody has one */
};

enum ops_guard_verdict {
	OPS_GUARD_PASS = 0,
	OPS_GUARD_HOST,	    /* 403: a name that was made to point here */
	OPS_GUARD_ORIGIN,   /* 403: the page of somebody else asks */
	OPS_GUARD_NO_TOKEN, /* 403: only this machine may, no token is set */
	OPS_GUARD_TOKEN,    /* 401: none, or a wrong one */
};

enum ops_guard_verdict
ops_guard_judge(const struct ops_guard_facts *facts) SHM_MUSTCHECK;

/* Judge the request.  True: go on; else it was answered, with *result. */
bool ops_guard_pass(const struct ops_request *request, const char *method,
    enum MHD_Result *result) SHM_MUSTCHECK;

#endif

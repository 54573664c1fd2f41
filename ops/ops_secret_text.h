/*
 * What Secrets Manager answers, and what it means for the database.
 */
#ifndef OPS_SECRET_TEXT_H
#define OPS_SECRET_TEXT_H

#include "ops/ops_curl.h"
#include "shm/shm_secret.h"

#define OPS_SECRET_REASON_BYTES 240
#define OPS_SECRET_TYPE_BYTES	64

/* What to do about a failure. */
enum ops_secret_fault {
	OPS_SECRET_OK = 0,
	OPS_SECRET_LATER,     /* it passes by itself */
	OPS_SECRET_THROTTLED, /* the same, and not too soon */
	OPS_SECRET_KEYS,      /* with other keys */
	OPS_SECRET_ADMIN,     /* somebody has to change something */
};

struct ops_secret_verdict {
	enum ops_secret_fault fault;
	char type[OPS_SECRET_TYPE_BYTES];     /* AWS's name for it; "" */
	char reason[OPS_SECRET_REASON_BYTES]; /* with what to do */
};

/*
 * Judge the answer to GetSecretValue at now_s of our clock.  Only when it is
 * OK text is the piece of a connection string, "user='...' password='...'" and
 * host, port and dbname when the secret has them; the caller wipes it.
 */
void ops_secret_judge(const struct ops_curl_answer *answer, int64_t now_s,
    struct ops_secret_verdict *verdict, char text[SHM_SECRET_BYTES_MAX]);

#endif

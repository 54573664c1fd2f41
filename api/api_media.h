/*
 * Media types: what a client takes, and what it sent (RFC 9110 sections 8.3,
 * 8.4 and 12.5.1).
 */
#ifndef API_MEDIA_H
#define API_MEDIA_H

#include "api/api_slice.h"

struct api_media_accept {
	bool json;    /* an answer of application/json will do */
	bool problem; /* asks for application/problem+json (RFC 9457) */
};

/* Read the value of Accept; data NULL: there was none. */
struct api_media_accept api_media_accept(struct api_slice accept);

/* Is a body of this Content-Type JSON in UTF-8? */
bool api_media_is_json(struct api_slice content_type);

/* Does Content-Encoding name no coding but "identity", or is it absent? */
bool api_media_is_identity(struct api_slice content_encoding);

#endif

/*
 * The chunked transfer coding (RFC 9112 section 7.1), read bytewise or in any
 * pieces.  Chunk extensions and trailers are parsed strictly and thrown away.
 */
#ifndef WORKER_CHUNKED_H
#define WORKER_CHUNKED_H

#include "api/api_slice.h"

#define WORKER_CHUNKED_LINE_MAX	   1024 /* a chunk-size line: longer is BAD */
#define WORKER_CHUNKED_TRAILER_MAX 8192 /* all trailers: longer is BAD */
/* All extensions of one body together: longer is BAD. */
#define WORKER_CHUNKED_EXTENSION_MAX 16384

struct worker_chunked {
	uint8_t state; /* private */
	uint8_t digits;
	uint32_t line_bytes;
	uint32_t trailer_bytes;
	uint32_t extension_bytes;
	uint64_t left; /* of the present chunk */
};

enum worker_chunked_result {
	WORKER_CHUNKED_MORE = 0, /* all input used; *data may hold bytes */
	WORKER_CHUNKED_DATA, /* *data holds bytes; call again with the rest */
	WORKER_CHUNKED_DONE, /* the body ended; bytes after *used are not its */
	WORKER_CHUNKED_BAD,  /* framing error: 400 and close */
};

void worker_chunked_init(struct worker_chunked *chunked);

/*
 * Take some of in[0..len): *used bytes were consumed and *data (possibly
 * empty) is body text inside in.  A chunk size over 2^60 is BAD; the caller
 * counts the body's bytes against its own limit.  After DONE or BAD every call
 * says so again and uses nothing.
 */
enum worker_chunked_result
worker_chunked_read(struct worker_chunked *chunked, const char *in, size_t len,
    size_t *used, struct api_slice *data) SHM_MUSTCHECK;

#endif

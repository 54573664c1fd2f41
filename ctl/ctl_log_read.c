/*
 * The lines of a log, now and as they come.
 *
 * ROTATION: a log is moved away and booksd makes a new one (USR1), or it is
 * cut to nothing in place.  At the end of what we have open the path is looked
 * at: another file there means that ours is finished once it was read to its
 * end again, because lines can have been added between the two looks; a
 * shorter one was cut.  While there is no file at all we wait for one.
 */
#include "config.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <sysexits.h>
#include <time.h>
#include <unistd.h>

#include "ctl/ctl_log.h"

#define LOOK_MS	   100 /* between looks at a file that does not grow */
#define TAIL_LINES 10

struct reader {
	const char *path;
	ctl_log_each *each;
	void *owner;
	int fd;
	bool is_skipping; /* the rest of a line that was too long */
	size_t len;
	char data[CTL_LOG_LINE_MAX];
};

static void
lines_take(struct reader *reader)
{
	const char *at = reader->data, *end = at + reader->len, *line_end;

	while ((line_end = memchr(at, '\n', (size_t)(end - at))) != NULL) {
		if (!reader->is_skipping)
			reader->each(
			    reader->owner, at, (size_t)(line_end - at));
		reader->is_skipping = false;
		at = line_end + 1;
	}
	reader->len = (size_t)(end - at);
	if (reader->len == sizeof(reader->data)) {
		if (!reader->is_skipping)
			reader->each(reader->owner, at, reader->len);
		reader->is_skipping = true;
		reader->len = 0;
	}
	memmove(reader->data, at, reader->len);
}

/* The last line may have no end. */
static void
line_finish(struct reader *reader)
{
	if (reader->len > 0 && !reader->is_skipping)
		reader->each(reader->owner, reader->data, reader->len);
	reader->len = 0;
	reader->is_skipping = false;
}

/* To the end of what there is: EX_OK, or why not. */
static int
read_on(struct reader *reader)
{
	ssize_t got;

	for (;;) {
		got = read(reader->fd, reader->data + reader->len,
		    sizeof(reader->data) - reader->len);
		if (got == 0)
			return EX_OK;
		if (got == -1 && errno == EINTR)
			continue;
		if (got == -1) {
			ctl_say("%s: %s", reader->path, strerror(errno));
			return EX_IOERR;
		}
		reader->len += (size_t)got;
		lines_take(reader);
		/* The next read(2) may wait, and somebody may watch. */
		if (fflush(stdout) == EOF)
			return EX_OK; /* main() says so */
	}
}

/* Stand before the last TAIL_LINES lines; nothing that has no end is moved. */
static void
seek_tail(int fd)
{
	char data[CTL_LOG_LINE_MAX];
	off_t size = lseek(fd, 0, SEEK_END), from;
	ssize_t got;
	int lines = 0;

	if (size == -1)
		return;
	from = size > (off_t)sizeof(data) ? size - (off_t)sizeof(data) : 0;
	got = pread(fd, data, sizeof(data), from);
	for (ssize_t at = got - 1; at > 0; at--)
		if (data[at - 1] == '\n' && ++lines == TAIL_LINES) {
			from += at;
			break;
		}
	(void)lseek(fd, from, SEEK_SET);
}

/* Is what is open still what the path names?  A file that is gone is: another
 * may come. */
static bool
is_same(const struct reader *reader)
{
	struct stat ours, theirs;

	if (fstat(reader->fd, &ours) == -1 || stat(reader->path, &theirs) == -1)
		return true;
	return ours.st_dev == theirs.st_dev && ours.st_ino == theirs.st_ino;
}

static void
look_for_cut(struct reader *reader)
{
	struct stat status;

	if (fstat(reader->fd, &status) == 0 && S_ISREG(status.st_mode) &&
	    status.st_size < lseek(reader->fd, 0, SEEK_CUR)) {
		line_finish(reader);
		(void)lseek(reader->fd, 0, SEEK_SET);
	}
}

static int
look_for_new(struct reader *reader)
{
	int code, fd;

	if (is_same(reader))
		return EX_OK;
	code = read_on(reader);
	if (code != EX_OK)
		return code;
	fd = open(reader->path, O_RDONLY | O_CLOEXEC | O_NOCTTY);
	if (fd == -1)
		return EX_OK; /* moved again, or not ours yet */
	line_finish(reader);
	close(reader->fd);
	reader->fd = fd;
	return EX_OK;
}

static int
follow_on(struct reader *reader)
{
	const struct timespec pause = {0, LOOK_MS * 1000000L};
	int code = EX_OK;

	seek_tail(reader->fd);
	while (code == EX_OK) {
		code = read_on(reader);
		if (ferror(stdout))
			return EX_OK;
		if (code == EX_OK && reader->fd != STDIN_FILENO) {
			look_for_cut(reader);
			code = look_for_new(reader);
		}
		if (code == EX_OK)
			nanosleep(&pause, NULL);
	}
	return code;
}

int
ctl_log_read(const char *path, bool follow, ctl_log_each *each, void *owner)
{
	static struct reader reader;
	int code;

	reader.path = path;
	reader.each = each;
	reader.owner = owner;
	reader.fd = STDIN_FILENO;
	if (strcmp(path, "-") != 0)
		reader.fd = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY);
	if (reader.fd == -1) {
		ctl_say("%s: %s", path, strerror(errno));
		return EX_NOINPUT;
	}
	/* Standard input ends by itself. */
	if (follow && reader.fd != STDIN_FILENO)
		return follow_on(&reader);
	code = read_on(&reader);
	line_finish(&reader);
	return code;
}

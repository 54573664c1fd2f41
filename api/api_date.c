/*
 * Dates: the civil date of a day, and the form that HTTP has for it.
 */
#include "config.h"

#include <string.h>

#include "api/api_date.h"

#define DAY_S		  86400u
#define DAY_OF_2000_03_01 11017 /* from 1970-01-01 */

/*
 * Years are taken to begin in March, so that the leap day is the last of its
 * year, and 400 of them are always as long; the day of the year then gives the
 * month by the pattern 31 30 31 30 31 that repeats from March on.
 */
struct api_date_civil
api_date_civil(int64_t day)
{
	int64_t since = day - DAY_OF_2000_03_01;
	int64_t cycle = since / 146097, year;
	unsigned rest, centuries, quads, years, month;

	if (since % 146097 < 0)
		cycle--; /* division rounds towards zero */
	rest = (unsigned)(since - cycle * 146097);
	centuries = rest / 36524 < 3 ? rest / 36524 : 3;
	rest -= centuries * 36524;
	quads = rest / 1461;
	rest -= quads * 1461;
	years = rest / 365 < 3 ? rest / 365 : 3;
	rest -= years * 365;
	month = (5 * rest + 2) / 153; /* 0 is March */
	rest -= (153 * month + 2) / 5;
	year = 2000 + cycle * 400 + centuries * 100 + quads * 4 + years;
	return (struct api_date_civil){
	    .year = year + (month >= 10), /* January and February */
	    .month = month < 10 ? month + 3 : month - 9,
	    .day = rest + 1,
	};
}

char *
api_date_put_pair(char *at, unsigned value)
{
	at[0] = (char)('0' + value / 10);
	at[1] = (char)('0' + value % 10);
	return at + 2;
}

static char *
put_name(char *at, const char *names, unsigned index)
{
	memcpy(at, names + 3 * index, 3);
	return at + 3;
}

/* "06 Nov 1994" */
static char *
put_day(char *at, uint64_t day)
{
	struct api_date_civil civil = api_date_civil((int64_t)day);

	at = api_date_put_pair(at, civil.day);
	*at++ = ' ';
	at = put_name(
	    at, "JanFebMarAprMayJunJulAugSepOctNovDec", civil.month - 1);
	*at++ = ' ';
	at = api_date_put_pair(at, (unsigned)(civil.year / 100));
	return api_date_put_pair(at, (unsigned)(civil.year % 100));
}

void
api_date(uint64_t unix_s, char out[API_DATE_BYTES])
{
	/* The form has four digits for the year. */
	const uint64_t end_s = UINT64_C(253402300799);
	uint64_t day;
	unsigned rest;
	char *at;

	if (unix_s > end_s)
		unix_s = end_s;
	day = unix_s / DAY_S;
	rest = (unsigned)(unix_s % DAY_S);
	at = put_name(out, "ThuFriSatSunMonTueWed", (unsigned)(day % 7));
	*at++ = ',';
	*at++ = ' ';
	at = put_day(at, day);
	*at++ = ' ';
	at = api_date_put_pair(at, rest / 3600);
	*at++ = ':';
	at = api_date_put_pair(at, rest / 60 % 60);
	*at++ = ':';
	at = api_date_put_pair(at, rest % 60);
	memcpy(at, " GMT", 4);
	SHM_ASSERT(at + 4 == out + API_DATE_BYTES);
}

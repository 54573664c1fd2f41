/*
 * Dates by the Gregorian calendar, without the C library's locale and limits.
 */
#ifndef API_DATE_H
#define API_DATE_H

#include "api/api.h"

struct api_date_civil {
	int64_t year;
	unsigned month; /* 1 to 12 */
	unsigned day;	/* 1 to 31 */
};

/* The civil date of a day counted from 1970-01-01. */
struct api_date_civil api_date_civil(int64_t day);

/* Two digits of a number below 100; returns the end. */
char *api_date_put_pair(char *at, unsigned value);

#endif

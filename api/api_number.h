/*
 * Doubles as ECMAScript prints them, because clients of the original service
 * read prices written that way.
 */
#ifndef API_NUMBER_H
#define API_NUMBER_H

#include "shm/shm_base.h"

#define API_NUMBER_BYTES_MAX 32 /* the longest is 24 and a NUL */

/*
 * Print value as ECMAScript's Number::toString does: the fewest digits that
 * read back as the same double, 10, 9.9, 1e-7, 1e+21.  What JSON cannot say
 * (NaN, the infinities) is printed as "null".  Returns the length; out ends
 * with a NUL.  The locale makes no difference.
 */
size_t api_number_print(double value, char out[API_NUMBER_BYTES_MAX]);

#endif

/*
 * The shortest digits of a double, laid out as ECMAScript does.
 *
 * A number is held as significand times ten to the exponent.  Which
 * significand?  ECMAScript wants the one with the fewest digits that reads
 * back as the same double, and of several the nearest.
 *
 *   I1  A decimal of at most 15 digits survives the way through a normal
 *       double.  So when any such decimal reads back as the value, "%.14e"
 *       prints it, zeros at its end included: 15 digits are tried first and
 *       nothing shorter has to be.  Subnormals hold fewer digits: there the
 *       search starts at one.
 *   I2  The nearest decimal of 16 digits is the best candidate, except at a
 *       power of two, where doubles lie half as far apart below as above:
 *       the nearest decimal may lie below and outside, the next one above and
 *       inside.  So there the next one is tried as well.
 *   I3  17 digits always read back.
 *
 * Prices have two decimals.  If value is the double nearest to cents / 100
 * and cents has at most 15 digits, I1 says that these are the digits; division
 * is correctly rounded, so one division proves it and printf(3) and strtod(3)
 * stay out of the way of most rows.
 *
 * printf and strtod use the locale's decimal point, whatever it is: digits are
 * picked out of the text by being digits, and what is read back has no point.
 */
#include "config.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "api/api_number.h"

#define DIGITS_SURE 15	 /* DBL_DIG: I1 */
#define DIGITS_MAX  17	 /* DBL_DECIMAL_DIG: I3 */
#define CENTS_MAX   1e13 /* as a price: 15 digits of cents */

struct decimal {
	uint64_t significand; /* no zero at its end */
	int exponent;	      /* of ten */
};

/* value rounded to precision digits. */
static struct decimal
decimal_round(double value, int precision)
{
	struct decimal decimal = {0, 1 - precision};
	char text[48];

	snprintf(text, sizeof(text), "%.*e", precision - 1, value);
	for (const char *at = text; *at != '\0'; at++) {
		if (*at >= '0' && *at <= '9') {
			decimal.significand =
			    decimal.significand * 10 + (uint64_t)(*at - '0');
		} else if (*at == 'e') {
			decimal.exponent += atoi(at + 1);
			break;
		}
	}
	return decimal;
}

static bool
decimal_is(struct decimal decimal, double value)
{
	char text[48];

	snprintf(text, sizeof(text), "%llue%d",
	    (unsigned long long)decimal.significand, decimal.exponent);
	return strtod(text, NULL) == value;
}

static bool
is_power_of_two(double value)
{
	int exponent;

	return frexp(value, &exponent) == 0.5;
}

/* value is positive and finite. */
static struct decimal
decimal_shortest(double value)
{
	struct decimal decimal;
	int precision = isnormal(value) ? DIGITS_SURE : 1;

	if (value < CENTS_MAX) {
		decimal.significand = (uint64_t)(value * 100 + 0.5);
		decimal.exponent = -2;
		if ((double)decimal.significand / 100 == value)
			return decimal;
	}
	for (; precision < DIGITS_MAX; precision++) {
		decimal = decimal_round(value, precision);
		if (decimal_is(decimal, value))
			return decimal; /* I1 */
		if (precision == DIGITS_MAX - 1 && is_power_of_two(value)) {
			decimal.significand++; /* I2 */
			if (decimal_is(decimal, value))
				return decimal;
		}
	}
	return decimal_round(value, DIGITS_MAX); /* I3 */
}

static char *
put_zeros(char *at, int count)
{
	if (count > 0) {
		memset(at, '0', (size_t)count);
		at += count;
	}
	return at;
}

static char *
put_bytes(char *at, const char *bytes, int count)
{
	memcpy(at, bytes, (size_t)count);
	return at + count;
}

static char *
put_exponent(char *at, int exponent)
{
	*at++ = 'e';
	*at++ = exponent < 0 ? '-' : '+';
	return at + sprintf(at, "%d", abs(exponent));
}

/*
 * The layout of Number::toString, where point (ECMAScript's n) counts the
 * digits before the decimal point.
 */
static char *
put_layout(char *at, const char *digits, int count, int point)
{
	if (count <= point && point <= 21) {
		at = put_bytes(at, digits, count);
		return put_zeros(at, point - count);
	}
	if (0 < point && point <= 21) {
		at = put_bytes(at, digits, point);
		*at++ = '.';
		return put_bytes(at, digits + point, count - point);
	}
	if (-6 < point && point <= 0) {
		at = put_bytes(at, "0.", 2);
		at = put_zeros(at, -point);
		return put_bytes(at, digits, count);
	}
	*at++ = digits[0];
	if (count > 1) {
		*at++ = '.';
		at = put_bytes(at, digits + 1, count - 1);
	}
	return put_exponent(at, point - 1);
}

/* The digits of significand in digits[], their count as result. */
static int
digits_of(uint64_t significand, char digits[20])
{
	char reversed[20];
	int count = 0;

	for (; significand != 0; significand /= 10)
		reversed[count++] = (char)('0' + significand % 10);
	for (int i = 0; i < count; i++)
		digits[i] = reversed[count - 1 - i];
	return count;
}

size_t
api_number_print(double value, char out[API_NUMBER_BYTES_MAX])
{
	struct decimal decimal;
	char digits[20], *at = out;
	int count;

	if (!isfinite(value) || value == 0) {
		strcpy(out, value == 0 ? "0" : "null"); /* -0 is 0 there too */
		return strlen(out);
	}
	if (value < 0) {
		*at++ = '-';
		value = -value;
	}
	decimal = decimal_shortest(value);
	while (decimal.significand % 10 == 0) {
		decimal.significand /= 10;
		decimal.exponent++;
	}
	count = digits_of(decimal.significand, digits);
	at = put_layout(at, digits, count, count + decimal.exponent);
	*at = '\0';
	SHM_ASSERT(at < out + API_NUMBER_BYTES_MAX);
	return (size_t)(at - out);
}

/*
 * Goal: doubles are printed with the digits and the layout of ECMAScript's
 * Number::toString, in any locale.
 * Method: a table of edges whose expected texts were printed by an ECMAScript
 * engine; then properties over many random doubles: the text reads back as
 * the same double, and no text with one digit less does.
 */
#include "config.h"

#include <float.h>
#include <locale.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "api/api_number.h"

static const struct {
	double value;
	const char *text;
} cases[] = {
    {0, "0"},
    {-0.0, "0"},
    {1, "1"},
    {-1, "-1"},
    {10, "10"},
    {100, "100"},
    {9.9, "9.9"},
    {9.99, "9.99"},
    {49.95, "49.95"},
    {-49.95, "-49.95"},
    {0.1, "0.1"},
    {0.01, "0.01"},
    {0.001, "0.001"},
    {0.005, "0.005"},
    {0.07, "0.07"},
    {1.005, "1.005"},
    {0.29, "0.29"},
    {0.57, "0.57"},
    {1.15, "1.15"},
    {4.35, "4.35"},
    {33.33, "33.33"},
    {1234567.89, "1234567.89"},
    {9999999999999.98, "9999999999999.98"},
    {9999999999999.99, "9999999999999.99"},
    {10000000000000, "10000000000000"},
    {0.000001, "0.000001"},
    {0.0000011, "0.0000011"},
    {0.00000123, "0.00000123"},
    {1e-7, "1e-7"},
    {1.5e-7, "1.5e-7"},
    {1e20, "100000000000000000000"},
    {123456789012345680000.0, "123456789012345680000"},
    {999999999999999900000.0, "999999999999999900000"},
    {1e21, "1e+21"},
    {1.5e21, "1.5e+21"},
    {1e22, "1e+22"},
    {1e23, "1e+23"},
    {1e100, "1e+100"},
    {4294967295.0, "4294967295"},
    {9007199254740991.0, "9007199254740991"},
    {9007199254740992.0, "9007199254740992"},
    {9007199254740994.0, "9007199254740994"},
    {18014398509481984.0, "18014398509481984"},
    {1152921504606846976.0, "1152921504606847000"},
    {0.1 + 0.2, "0.30000000000000004"},
    {1.0 / 3, "0.3333333333333333"},
    {2.0 / 3, "0.6666666666666666"},
    {100.0 / 3, "33.333333333333336"},
    {M_PI, "3.141592653589793"},
    {M_E, "2.718281828459045"},
    {5e-324, "5e-324"},
    {1e-323, "1e-323"},
    {1.5e-323, "1.5e-323"},
    {2.225073858507201e-308, "2.225073858507201e-308"},
    {DBL_MIN, "2.2250738585072014e-308"},
    {DBL_MAX, "1.7976931348623157e+308"},
    {DBL_EPSILON, "2.220446049250313e-16"},
    {0x1p-44, "5.684341886080802e-14"},
    {0x1p-1022 * 0.5, "1.1125369292536007e-308"},
    {0x1p+69, "590295810358705700000"},
    {0x1p+70, "1.1805916207174113e+21"},
    {0x1p-24, "5.960464477539063e-8"},
    {0x1p-1019, "1.7800590868057611e-307"},
    {0x1p+976, "6.386688990511104e+293"},
    /* The nearest decimal of 16 digits is outside, the next one inside. */
    {0x1p-1017, "7.120236347223045e-307"},
    {0x1p-957, "8.209073602596753e-289"},
    {0x1p-695, "6.083493012144512e-210"},
    {NAN, "null"},
    {INFINITY, "null"},
    {-INFINITY, "null"},
};

static void
expect_text(double value, const char *text)
{
	char out[API_NUMBER_BYTES_MAX];
	size_t len = api_number_print(value, out);

	if (strcmp(out, text) != 0)
		fail_msg("%.17g printed as %s, not %s", value, out, text);
	assert_int_equal(len, strlen(text));
}

static void
edges_are_printed_as_ecmascript_prints_them(void **state)
{
	(void)state;
	for (size_t i = 0; i < SHM_ARRAY_LEN(cases); i++)
		expect_text(cases[i].value, cases[i].text);
}

/* xorshift: the same numbers in each run. */
static uint64_t
next_random(void)
{
	static uint64_t x = 88172645463325252ULL;

	x ^= x << 13;
	x ^= x >> 7;
	x ^= x << 17;
	return x;
}

static double
double_of(uint64_t bits)
{
	double value;

	memcpy(&value, &bits, sizeof(value));
	return value;
}

static int
digits_count(const char *text)
{
	int count = 0, zeros = 0;

	for (; *text != '\0' && *text != 'e'; text++) {
		if (*text == '0' && count > 0)
			zeros++; /* counts when another digit follows */
		if (*text >= '1' && *text <= '9') {
			count += zeros + 1;
			zeros = 0;
		}
	}
	return count;
}

static void
expect_shortest(double value)
{
	char out[API_NUMBER_BYTES_MAX], shorter[48];
	int digits;

	api_number_print(value, out);
	if (strtod(out, NULL) != value)
		fail_msg("%a printed as %s", value, out);
	digits = digits_count(out);
	assert_in_range(digits, 1, 17);
	if (digits == 1)
		return;
	snprintf(shorter, sizeof(shorter), "%.*e", digits - 2, value);
	if (strtod(shorter, NULL) == value)
		fail_msg("%s is longer than %s", out, shorter);
}

static void
random_doubles_read_back_from_the_fewest_digits(void **state)
{
	(void)state;
	for (int i = 0; i < 100000; i++) {
		double value = double_of(next_random() & INT64_MAX);

		if (isfinite(value) && value != 0)
			expect_shortest(value);
	}
}

static void
subnormals_read_back_from_the_fewest_digits(void **state)
{
	(void)state;
	for (int i = 0; i < 52; i++)
		expect_shortest(double_of(1ULL << i));
	for (int i = 0; i < 10000; i++)
		expect_shortest(
		    double_of(next_random() >> (12 + next_random() % 50) | 1));
}

static void
every_power_of_two_reads_back_from_the_fewest_digits(void **state)
{
	(void)state;
	for (uint64_t exponent = 1; exponent < 2047; exponent++) {
		expect_shortest(double_of(exponent << 52));
		expect_shortest(double_of((exponent << 52) - 1));
	}
}

static void
every_price_in_cents_is_printed_as_written(void **state)
{
	char text[32];
	size_t len;

	(void)state;
	for (unsigned cents = 1; cents <= 100000; cents++) {
		snprintf(
		    text, sizeof(text), "%u.%02u", cents / 100, cents % 100);
		len = strlen(text);
		while (text[len - 1] == '0')
			text[--len] = '\0';
		if (text[len - 1] == '.')
			text[--len] = '\0';
		expect_text(cents / 100.0, text);
	}
}

static void
a_locale_with_a_decimal_comma_changes_nothing(void **state)
{
	static const char *const names[] = {
	    "de_DE.UTF-8", "fr_FR.UTF-8", "ps_AF.UTF-8"};
	bool found = false;

	(void)state;
	for (size_t i = 0; i < SHM_ARRAY_LEN(names); i++) {
		if (setlocale(LC_NUMERIC, names[i]) == NULL)
			continue;
		found = true;
		expect_text(1.0 / 3, "0.3333333333333333");
		expect_text(5e-324, "5e-324");
		expect_text(1.5e-323, "1.5e-323");
	}
	setlocale(LC_NUMERIC, "C");
	if (!found)
		skip(); /* none of them is installed */
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(edges_are_printed_as_ecmascript_prints_them),
	    cmocka_unit_test(random_doubles_read_back_from_the_fewest_digits),
	    cmocka_unit_test(subnormals_read_back_from_the_fewest_digits),
	    cmocka_unit_test(
		every_power_of_two_reads_back_from_the_fewest_digits),
	    cmocka_unit_test(every_price_in_cents_is_printed_as_written),
	    cmocka_unit_test(a_locale_with_a_decimal_comma_changes_nothing),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

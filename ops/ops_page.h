/*
 * GET /: the dashboard, with a policy for browsers that lets it do no more than
 * it needs.
 */
#ifndef OPS_PAGE_H
#define OPS_PAGE_H

#include "ops/ops_http.h"

/* The page as it stands in ops/dashboard.html, ended by a 0. */
extern const char ops_page_html[];

enum MHD_Result ops_page(const struct ops_request *request);

#endif

/* What capi_main.cpp calls: each gives the number of checks that failed. */
#pragma once

#ifdef __cplusplus
extern "C" {
#endif

/* bundle: of the fake engine; newer: the same of schema 2. */
int capi_failures(const char* bundle, const char* newer);
int wrapper_failures(const char* bundle);

#ifdef __cplusplus
}
#endif

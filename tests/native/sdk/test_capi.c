/* The C API from C99: what it gives, and every wrong call, none of which may crash. */
#include <float.h>
#include <math.h>
#include <normscan/normscan.h>
#include <stdio.h>
#include <string.h>

#include "capi.h"

static int failures = 0;

#define CHECK(condition)                                                                                \
    do {                                                                                                \
        if (!(condition)) {                                                                             \
            ++failures;                                                                                 \
            fprintf(stderr, "%s:%d: %s (%s)\n", __FILE__, __LINE__, #condition, normscan_last_error()); \
        }                                                                                               \
    } while (0)

static int told(const char* part) {
    return strstr(normscan_last_error(), part) != NULL;
}

static void test_answers(const normscan_session* session) {
    normscan_info info = {.struct_size = sizeof info};
    const unsigned char pixels[] = {102, 102, 204, 204};
    float map[4];
    normscan_picture pictures[2] = {{.struct_size = sizeof pictures[0]}, {.struct_size = sizeof pictures[0]}};
    normscan_result results[2] = {{.struct_size = sizeof results[0]}, {.struct_size = sizeof results[0]}};
    int i;

    CHECK(normscan_get_info(session, &info) == NORMSCAN_OK);
    CHECK(info.input_channels == 3 && info.input_width == 12 && info.input_height == 8);
    CHECK(info.has_threshold == 1 && info.threshold == 0.25 && info.calibration_count == 20);
    CHECK(info.specificity_low == 0.75 && info.spread == 1e-5 && info.map_high == 0.5);
    CHECK(strcmp(info.family, "test") == 0 && strcmp(info.engine, "fake") == 0);
    CHECK(strcmp(info.precision, "fp32") == 0 && strcmp(info.notice, "caf\xc3\xa9") == 0);

    for (i = 0; i < 2; ++i) {
        pictures[i].pixels = pixels + 2 * i;
        pictures[i].width = 2;
        pictures[i].height = 1;
    }
    pictures[0].map = map;
    pictures[0].map_room = 2;
    CHECK(normscan_score(session, pictures, 2, results) == NORMSCAN_OK);
    CHECK(fabs(results[0].score - 0.2) < 1e-6 && results[0].decision == NORMSCAN_NORMAL);
    CHECK(fabs(results[1].score - 0.4) < 1e-6 && results[1].decision == NORMSCAN_ANOMALOUS);
    CHECK(fabs(map[1] - 0.2) < 1e-6 && results[1].engine_seconds > 0.0);
    CHECK(normscan_score(session, NULL, 0, NULL) == NORMSCAN_OK);
}

static void test_wrong_calls(normscan_session* session, const char* bundle) {
    normscan_session* other = session;
    normscan_options options = {.struct_size = sizeof options};
    normscan_info info = {.struct_size = 7};

    CHECK(normscan_open(bundle, NULL, NULL) == NORMSCAN_ERROR_ARGUMENT && told("session is null"));
    CHECK(normscan_open(NULL, NULL, &other) == NORMSCAN_ERROR_ARGUMENT && told("bundle is null") && other == NULL);
    options.struct_size = 0;
    CHECK(normscan_open(bundle, &options, &other) == NORMSCAN_ERROR_ARGUMENT && told("options: struct_size is 0"));
    options.struct_size = sizeof options;
    options.threads = 5000;
    CHECK(normscan_open(bundle, &options, &other) == NORMSCAN_ERROR_ARGUMENT && told("threads is 5000"));
    options.threads = 0;
    options.engine = "unknown";
    CHECK(normscan_open(bundle, &options, &other) == NORMSCAN_ERROR_ENGINE && told("libnormscan_engine_unknown.so"));
    options.engine = "../fake";
    CHECK(normscan_open(bundle, &options, &other) == NORMSCAN_ERROR_ENGINE && told("engine is \"../fake\""));
    CHECK(normscan_open("/nowhere", NULL, &other) == NORMSCAN_ERROR_BUNDLE && told("/nowhere is no folder"));
    CHECK(other == NULL);

    CHECK(normscan_get_info(NULL, &info) == NORMSCAN_ERROR_ARGUMENT && told("session is null"));
    CHECK(normscan_get_info(session, NULL) == NORMSCAN_ERROR_ARGUMENT && told("info is null"));
    CHECK(normscan_get_info(session, &info) == NORMSCAN_ERROR_ARGUMENT && told("info: struct_size is 7"));
    CHECK(normscan_cancel(NULL) == NORMSCAN_ERROR_ARGUMENT && normscan_cancel(session) == NORMSCAN_OK);
    normscan_close(NULL);
}

/* One score whose picture differs from a good one; the result must stay as it was. */
static normscan_status score(const normscan_session* session, normscan_picture picture) {
    normscan_result result = {.struct_size = sizeof result, .score = -7.0};
    const normscan_status status = normscan_score(session, &picture, 1, &result);
    CHECK(status == NORMSCAN_OK || result.score == -7.0);
    return status;
}

#define REFUSED(change, part)                                              \
    do {                                                                   \
        normscan_picture p = good;                                         \
        change;                                                            \
        CHECK(score(session, p) == NORMSCAN_ERROR_ARGUMENT && told(part)); \
    } while (0)

static void test_wrong_pictures(const normscan_session* session) {
    const float pixels[] = {0.5f, 0.5f, 0.5f, 0.5f};
    float map[4];
    normscan_result result = {.struct_size = sizeof result};
    const normscan_picture good = {
        .struct_size = sizeof good, .value_type = NORMSCAN_FLOAT32, .pixels = pixels, .width = 2, .height = 2};
    normscan_picture odd = good;
    float bad;

    CHECK(score(session, good) == NORMSCAN_OK);
    REFUSED(p.struct_size = sizeof p - 8, "pictures[0]: struct_size is");
    REFUSED(p.value_type = 3, "value_type is 3");
    REFUSED(p.value_type = -1, "value_type is -1");
    REFUSED(p.channels = 4, "channels is 4");
    REFUSED(p.reserved = 1, "reserved is 1");
    REFUSED(p.pixels = NULL, "pixels is null");
    REFUSED(p.pixels = (const char*)pixels + 1, "pixels does not begin at a multiple of 4");
    REFUSED(p.width = 0, "width is 0");
    REFUSED(p.height = INT64_MIN, "height is -9223372036854775808");
    REFUSED(p.width = p.height = INT64_MAX, "below 2^31 pixels");
    REFUSED((p.width = 1 << 16, p.height = 1 << 15), "below 2^31 pixels");
    REFUSED(p.row_stride = 4, "row_stride is 4");
    REFUSED(p.row_stride = 10, "a multiple of 4");
    REFUSED(p.row_stride = -8, "row_stride is -8");
    REFUSED(p.row_stride = INT64_MAX - 3, "do not fit into memory");
    REFUSED((p.map = map, p.map_room = 3), "the map has room for 3 floats, expected 4");
    REFUSED((p.map = (float*)(void*)((char*)map + 2), p.map_room = 4), "map does not begin");

    CHECK(normscan_score(NULL, &good, 1, &result) == NORMSCAN_ERROR_ARGUMENT && told("session is null"));
    CHECK(normscan_score(session, NULL, 1, &result) == NORMSCAN_ERROR_ARGUMENT && told("pictures is null"));
    CHECK(normscan_score(session, &good, 1, NULL) == NORMSCAN_ERROR_ARGUMENT && told("results is null"));
    CHECK(normscan_score(session, &good, SIZE_MAX, &result) == NORMSCAN_ERROR_ARGUMENT && told("count is"));
    result.struct_size = 1;
    CHECK(normscan_score(session, &good, 1, &result) == NORMSCAN_ERROR_ARGUMENT && told("results[0]: struct_size"));

    odd.pixels = &bad;
    odd.width = odd.height = 1;
    bad = (float)NAN;
    CHECK(score(session, odd) == NORMSCAN_ERROR_PICTURE && told("picture 0: row 0"));
    bad = 255.0f;
    CHECK(score(session, odd) == NORMSCAN_ERROR_PICTURE && told("outside 0..1"));
}

int capi_failures(const char* bundle, const char* newer) {
    normscan_session* session = NULL;
    CHECK(strcmp(normscan_last_error(), "") == 0);
    CHECK(normscan_abi() == NORMSCAN_ABI && strlen(normscan_version()) >= 5);
    CHECK(strcmp(normscan_status_name(NORMSCAN_ERROR_BUNDLE), "bundle") == 0);
    CHECK(strcmp(normscan_status_name(-1), "unknown") == 0 && strcmp(normscan_status_name(8), "unknown") == 0);
    CHECK(normscan_open(newer, NULL, &session) == NORMSCAN_ERROR_BUNDLE && told("schema is 2, expected 1"));
    CHECK(normscan_open(bundle, NULL, &session) == NORMSCAN_OK && session != NULL);
    if (session == NULL) return failures;
    test_answers(session);
    test_wrong_calls(session, bundle);
    test_wrong_pictures(session);
    normscan_close(session);
    return failures;
}

/* The C API of normscan: opens a bundle and scores pictures. Strict C99; needs no other header of normscan.
 *
 *   normscan_session* session = NULL;
 *   if (normscan_open("x.normscan", NULL, &session) != NORMSCAN_OK) puts(normscan_last_error());
 *
 * Every struct begins with `struct_size`, which the caller sets to its sizeof; all that is not set must be 0. Strings
 * are UTF-8. Memory that goes in stays the caller's and is not used after the call; what comes out is written to memory
 * of the caller. Functions that return a status return NORMSCAN_OK or what went wrong, and keep a message for
 * normscan_last_error(). Nothing is thrown, and no signal handler is installed.
 */
#ifndef NORMSCAN_H
#define NORMSCAN_H

#include <stddef.h>
#include <stdint.h>

#if defined(_WIN32) && defined(NORMSCAN_BUILDING)
#define NORMSCAN_API __declspec(dllexport)
#elif defined(_WIN32)
#define NORMSCAN_API __declspec(dllimport)
#else
#define NORMSCAN_API __attribute__((visibility("default")))
#endif

#ifdef __cplusplus
extern "C" {
#endif

/* The ABI of this header, and the number in the library's file name. Another number: another ABI. */
#define NORMSCAN_ABI 0

/* What a function returns. Later versions may add to it: treat what you do not know as an error. */
typedef int32_t normscan_status;
#define NORMSCAN_OK 0
#define NORMSCAN_ERROR_ARGUMENT 1  /* a null pointer, a wrong size, stride or struct_size: nothing was written */
#define NORMSCAN_ERROR_BUNDLE 2    /* the bundle is missing, damaged, altered, or of a newer schema */
#define NORMSCAN_ERROR_ENGINE 3    /* no engine opens the bundle, or it failed to run */
#define NORMSCAN_ERROR_PICTURE 4   /* pixels (float32 outside 0..1) or a score that are not finite numbers */
#define NORMSCAN_ERROR_CANCELLED 5 /* normscan_cancel() was called meanwhile */
#define NORMSCAN_ERROR_MEMORY 6    /* no memory left */
#define NORMSCAN_ERROR_INTERNAL 7  /* anything else: a fault of normscan's */

/* An opened bundle with its engine. */
typedef struct normscan_session normscan_session;

/* How to open. */
typedef struct normscan_options {
    uint32_t struct_size; /* sizeof(normscan_options) */
    int32_t threads;      /* of the engine, and of the pool that all sessions of the process share; 0: all cores */
    const char* engine;   /* e.g. "openvino"; NULL: what the bundle was accepted on, or the first that opens it */
    const char* device;   /* "auto" or "cpu", or what else the engine knows; NULL: "auto" */
} normscan_options;

/* What is known of an opened session. */
typedef struct normscan_info {
    uint32_t struct_size;      /* sizeof(normscan_info) */
    int32_t input_channels;    /* of the network: 1 or 3; pictures are brought to it */
    int64_t input_width;       /* of the network, in pixels; pictures may have any size */
    int64_t input_height;      /* in pixels */
    int32_t has_threshold;     /* 1; or 0, and the next five fields are 0: there are no decisions */
    int32_t reserved;          /* 0 */
    double threshold;          /* anomalous where score > threshold */
    int64_t calibration_count; /* normal pictures that the threshold was set on */
    double target_specificity; /* the share of normals that shall be called normal, 0..1 */
    double specificity_low;    /* the 95 % interval of the specificity that the threshold has, 0..1 */
    double specificity_high;
    double spread;              /* the standard deviation of calibration scores: the unit of tolerances */
    double map_low;             /* the value of a map that colours begin at */
    double map_high;            /* and the one that they end at */
    const char* family;         /* These five live as long as the session. The method, e.g. "stfpm" */
    const char* precision;      /* of the network: "fp32", "fp16", "bf16" or "int8" */
    const char* engine;         /* e.g. "openvino" */
    const char* engine_version; /* of what runs the network */
    const char* notice;         /* what the bundle may be used for */
} normscan_info;

/* Of a value of a pixel. */
#define NORMSCAN_UINT8 0   /* 0..255 */
#define NORMSCAN_UINT16 1  /* 0..65535, in the byte order of the machine */
#define NORMSCAN_FLOAT32 2 /* 0..1 */

/* Of a pixel, side by side. */
#define NORMSCAN_GREY 0
#define NORMSCAN_RGB 1
#define NORMSCAN_BGR 2
#define NORMSCAN_RGBA 3 /* what is transparent is seen over black */

/* A picture, and where its map goes. */
typedef struct normscan_picture {
    uint32_t struct_size; /* sizeof(normscan_picture) */
    int32_t value_type;   /* NORMSCAN_UINT8, ... */
    int32_t channels;     /* NORMSCAN_GREY, ... */
    int32_t reserved;     /* 0 */
    const void* pixels;   /* the upper left one; aligned for its value type */
    int64_t width;        /* in pixels, at least 1; width * height < 2^31 */
    int64_t height;       /* in pixels, at least 1 */
    int64_t row_stride;   /* in bytes from one row to the next; 0: rows have nothing between them */
    float* map;           /* written: anomaly of every pixel, [height][width], higher is more anomalous; NULL: no map */
    uint64_t map_room;    /* floats that `map` has room for, at least width * height */
} normscan_picture;

/* What was found in a picture. */
typedef struct normscan_result {
    uint32_t struct_size; /* sizeof(normscan_result), set by the caller */
    int32_t decision;     /* NORMSCAN_NORMAL, NORMSCAN_ANOMALOUS or NORMSCAN_UNDECIDED */
    double score;         /* higher is more anomalous; its unit is the bundle's own */
    /* Where the time of the call went, in seconds; of a batch: of all of it. */
    double prepare_seconds; /* pixels to network input */
    double engine_seconds;  /* the network */
    double score_seconds;   /* its outputs to score and map */
} normscan_result;

#define NORMSCAN_UNDECIDED (-1) /* the bundle has no threshold */
#define NORMSCAN_NORMAL 0
#define NORMSCAN_ANOMALOUS 1

/* The ABI of the library that was loaded: compare it with NORMSCAN_ABI. Any thread, any time. */
NORMSCAN_API uint32_t normscan_abi(void);

/* The version of the library, e.g. "0.1.0". Static memory. Any thread, any time. */
NORMSCAN_API const char* normscan_version(void);

/* A status in words, e.g. "bundle". Static memory. Any thread, any time. */
NORMSCAN_API const char* normscan_status_name(normscan_status status);

/* What the last function that failed on this thread found and expected; "" before any failed. It is overwritten by the
 * next that fails on this thread, and lives as long as the thread. */
NORMSCAN_API const char* normscan_last_error(void);

/* Verifies every file of the bundle and opens its network; takes from a tenth of a second to some seconds. `bundle` is
 * the path of a folder. `options` may be NULL. On success *session is the caller's, to be closed by normscan_close();
 * else it is NULL. Any thread. */
NORMSCAN_API normscan_status normscan_open(const char* bundle, const normscan_options* options,
                                           normscan_session** session);

/* Frees the session; NULL is allowed. No other call may use it meanwhile or afterwards. */
NORMSCAN_API void normscan_close(normscan_session* session);

/* Fills *info, whose struct_size is set. Any thread. */
NORMSCAN_API normscan_status normscan_get_info(const normscan_session* session, normscan_info* info);

/* Scores `count` pictures of any sizes (0..4096) in one run of the network: pictures[i] gives results[i], whose
 * struct_size is set. Unless it returns NORMSCAN_OK, results are left as they were, and what is in maps is not to be
 * used. Many threads may score with one session at once; maps and results of different calls must not overlap. */
NORMSCAN_API normscan_status normscan_score(const normscan_session* session, const normscan_picture* pictures,
                                            size_t count, normscan_result* results);

/* Every normscan_score() that is under way with this session ends soon, between two of its steps, and returns
 * NORMSCAN_ERROR_CANCELLED; later ones are not touched. It does not wait for them. Any thread. */
NORMSCAN_API normscan_status normscan_cancel(normscan_session* session);

#ifdef __cplusplus
}
#endif

#endif

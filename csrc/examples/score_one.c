/* Scores one picture: score_one BUNDLE PICTURE.pgm|.ppm [MAP.pgm]
 * Prints the score and the decision, and writes where the picture is anomalous. 8-bit binary PGM (P5) or PPM (P6). */
#include <normscan/normscan.h>
#include <stdio.h>
#include <stdlib.h>

/* The next number of the header; white space and comments go before it. */
static long header_number(FILE* file) {
    long number = -1;
    int c = getc(file);
    while (c == ' ' || c == '\t' || c == '\r' || c == '\n' || c == '#') {
        if (c == '#') {
            while (c != '\n' && c != EOF) c = getc(file);
        }
        c = getc(file);
    }
    ungetc(c, file);
    return fscanf(file, "%9ld", &number) == 1 ? number : -1;
}

/* The pixels, which are the caller's to free; NULL where it is no such picture. */
static unsigned char* read_picture(const char* path, normscan_picture* picture) {
    FILE* file = fopen(path, "rb");
    unsigned char* pixels = NULL;
    if (file == NULL) return NULL;
    if (getc(file) == 'P') {
        const int kind = getc(file);
        const long width = header_number(file), height = header_number(file), most = header_number(file);
        getc(file); /* one white space */
        if ((kind == '5' || kind == '6') && most == 255 && width > 0 && height > 0 && width <= 1 << 15 &&
            height <= 1 << 15) {
            const size_t bytes = (size_t)width * (size_t)height * (kind == '6' ? 3 : 1);
            pixels = malloc(bytes);
            if (pixels != NULL && fread(pixels, 1, bytes, file) != bytes) {
                free(pixels);
                pixels = NULL;
            }
            picture->value_type = NORMSCAN_UINT8;
            picture->channels = kind == '6' ? NORMSCAN_RGB : NORMSCAN_GREY;
            picture->pixels = pixels;
            picture->width = width;
            picture->height = height;
        }
    }
    fclose(file);
    return pixels;
}

/* The map in grey, from where colours begin to where they end. */
static int write_map(const char* path, const normscan_picture* picture, const normscan_info* info) {
    const double range = info->map_high > info->map_low ? info->map_high - info->map_low : 1.0;
    FILE* file = fopen(path, "wb");
    int64_t i;
    if (file == NULL) return 0;
    fprintf(file, "P5\n%ld %ld\n255\n", (long)picture->width, (long)picture->height);
    for (i = 0; i < picture->width * picture->height; ++i) {
        const double share = (picture->map[i] - info->map_low) / range;
        putc(share <= 0.0 ? 0 : share >= 1.0 ? 255 : (int)(share * 255.0 + 0.5), file);
    }
    return fclose(file) == 0;
}

static int fail(const char* what, const char* why) {
    fprintf(stderr, "score_one: %s: %s\n", what, why);
    return 1;
}

int main(int count, char** arguments) {
    static const char* const decisions[] = {"undecided", "normal", "anomalous"};
    normscan_session* session = NULL;
    normscan_info info = {.struct_size = sizeof info};
    normscan_picture picture = {.struct_size = sizeof picture};
    normscan_result result = {.struct_size = sizeof result};
    unsigned char* pixels = NULL;
    int failed = 1;

    if (count < 3 || count > 4) return fail("usage", "score_one BUNDLE PICTURE.pgm|.ppm [MAP.pgm]");
    if (normscan_abi() != NORMSCAN_ABI) return fail("libnormscan", "it is of another ABI than this program");
    if (normscan_open(arguments[1], NULL, &session) != NORMSCAN_OK) return fail("open", normscan_last_error());

    pixels = read_picture(arguments[2], &picture);
    if (pixels != NULL && count == 4) {
        picture.map_room = (uint64_t)picture.width * (uint64_t)picture.height;
        picture.map = malloc((size_t)picture.map_room * sizeof *picture.map);
    }
    if (pixels == NULL) {
        fail(arguments[2], "it is no 8-bit PGM or PPM that can be read");
    } else if (count == 4 && picture.map == NULL) {
        fail("map", "there is no memory left");
    } else if (normscan_get_info(session, &info) != NORMSCAN_OK ||
               normscan_score(session, &picture, 1, &result) != NORMSCAN_OK) {
        fail(arguments[2], normscan_last_error());
    } else if (count == 4 && !write_map(arguments[3], &picture, &info)) {
        fail(arguments[3], "it cannot be written");
    } else {
        printf("score %.17g\ndecision %s\n", result.score, decisions[result.decision + 1]);
        if (info.has_threshold) printf("threshold %.17g\n", info.threshold);
        printf("engine %s %s\n", info.engine, info.engine_version);
        printf("milliseconds prepare %.3f engine %.3f score %.3f\n", 1e3 * result.prepare_seconds,
               1e3 * result.engine_seconds, 1e3 * result.score_seconds);
        failed = 0;
    }
    free(picture.map);
    free(pixels);
    normscan_close(session);
    return failed;
}

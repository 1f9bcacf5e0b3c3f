/*
 * Runs a fuzz target over recorded inputs, without libFuzzer: so each corpus is a test in every
 * build, under gcc too, and an input that once broke something stays broken for good if it
 * breaks again.
 *
 * Usage: fuzz_NAME FOLDER-OR-FILE...   A folder is read one level deep; without any input in it
 * the run fails, as a test that ran nothing has shown nothing.
 */
#include <dirent.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void die(const char *path, const char *problem) {
    fprintf(stderr, "%s: %s\n", path, problem);
    exit(1);
}

/* An exact allocation of the input, so that AddressSanitizer sees a read of one byte past it. */
static void replay_file(const char *path, size_t size) {
    FILE *file = fopen(path, "rb");
    uint8_t *data = malloc(size ? size : 1);
    if (file == NULL || data == NULL || fread(data, 1, size, file) != size)
        die(path, "cannot be read");
    fclose(file);
    printf("%s (%zu bytes)\n", path, size);
    fflush(stdout);
    LLVMFuzzerTestOneInput(data, size);
    free(data);
}

static int replay(const char *path);

static int replay_folder(const char *path) {
    int count = 0;
    DIR *folder = opendir(path);
    if (folder == NULL)
        die(path, "cannot be opened");
    for (struct dirent *entry; (entry = readdir(folder)) != NULL;) {
        char inner[4096];
        int length = snprintf(inner, sizeof(inner), "%s/%s", path, entry->d_name);
        if (length < 0 || (size_t)length >= sizeof(inner))
            die(path, "holds a name that is too long");
        if (entry->d_name[0] != '.')
            count += replay(inner);
    }
    closedir(folder);
    return count;
}

/* Returns how many inputs ran. */
static int replay(const char *path) {
    struct stat status;
    if (stat(path, &status) != 0)
        die(path, "is missing");
    if (S_ISDIR(status.st_mode))
        return replay_folder(path);
    replay_file(path, (size_t)status.st_size);
    return 1;
}

int main(int argc, char **argv) {
    int count = 0;
    for (int i = 1; i < argc; i++)
        count += replay(argv[i]);
    if (count == 0)
        die(argc > 1 ? argv[1] : "the command line", "names no input to replay");
    printf("%d inputs replayed\n", count);
    return 0;
}

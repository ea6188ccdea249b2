/* A stand-in for NVIDIA's libnvidia-ml.so.1, for tests: what it tells stands in a text file.
 *
 * The file is named by the environment variable FAKE_NVML and read anew at every call, so a test
 * changes the machine while the library is in use. One line is one fact, `kind key=value ...`:
 *
 *   driver  version= nvml= cuda=           what the driver says of itself
 *   gpu     uuid= name= total= used= ...   one GPU; a field without a key is "not supported"
 *   mig     gpu= gi= ci= uuid= total= ...  one MIG instance of the GPU with that index
 *   process gpu= mig= pid= bytes= kind=    memory of a process; kind is compute or graphics
 *   error   call= gpu= code=               a call fails; `call=*` is every call about that GPU
 *   hang    call= gpu=                     a call does not return while this line is there
 *   lag     call= gpu= ms=                 a call takes so long
 *   event   seq= gpu= type= data= gi= ci=  one event, told once to every event set
 *
 * In names, `_` stands for a space. Only what ollamad calls is there.
 */
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { SUCCESS = 0, UNINITIALIZED = 1, INVALID_ARGUMENT = 2, NOT_SUPPORTED = 3, NOT_FOUND = 6,
       INSUFFICIENT_SIZE = 7, DRIVER_NOT_LOADED = 9, TIMEOUT = 10 };
enum { TEXT_MAX = 1 << 16, LINES_MAX = 512, FIELDS_MAX = 40, GPUS_MAX = 64, MIGS_MAX = 16 };

#ifndef NVML_BUILD
#define NVML_BUILD "13.615.71"
#endif

typedef unsigned int uint;
typedef unsigned long long ull;
typedef struct { int gpu, mig; } device; /* mig is -1 for the GPU itself */
typedef struct { ull last_seq; } event_set;
typedef struct { uint pid; ull bytes; uint gi, ci; } process_info;
typedef struct { device *device; ull type, data; uint gi, ci; } event_data;

typedef struct { const char *kind, *keys[FIELDS_MAX], *values[FIELDS_MAX]; int n; } line;
typedef struct { char text[TEXT_MAX]; line lines[LINES_MAX]; int n; } world;

static device gpus[GPUS_MAX], migs[GPUS_MAX][MIGS_MAX];
static atomic_int n_inits;
static __thread world the_world;

/* The file. */

static const char *value_of(const line *l, const char *key) {
    for (int i = 0; i < l->n; i++)
        if (!strcmp(l->keys[i], key)) return l->values[i];
    return NULL;
}

static ull number_of(const line *l, const char *key, ull otherwise) {
    const char *value = value_of(l, key);
    return value ? strtoull(value, NULL, 10) : otherwise;
}

static int load(world *w) {
    const char *path = getenv("FAKE_NVML");
    FILE *file = path ? fopen(path, "r") : NULL;
    if (!file) return 0;
    size_t size = fread(w->text, 1, TEXT_MAX - 1, file);
    fclose(file);
    w->text[size] = 0;
    w->n = 0;
    char *rest = w->text, *row;
    while (w->n < LINES_MAX && (row = strsep(&rest, "\n"))) {
        char *word = strsep(&row, " ");
        if (!*word) continue;
        line *l = &w->lines[w->n++];
        l->kind = word;
        l->n = 0;
        while (l->n < FIELDS_MAX && (word = strsep(&row, " "))) {
            char *value = strchr(word, '=');
            if (!value) continue;
            *value++ = 0;
            l->keys[l->n] = word;
            l->values[l->n++] = value;
        }
    }
    return 1;
}

/* The next line of a kind at or after *at. */
static const line *next_line(const world *w, const char *kind, int *at) {
    for (; *at < w->n; ++*at)
        if (!strcmp(w->lines[*at].kind, kind)) return &w->lines[(*at)++];
    return NULL;
}

static const line *rule_for(const world *w, const char *kind, const char *call, int gpu) {
    int at = 0;
    for (const line *l; (l = next_line(w, kind, &at));) {
        const char *name = value_of(l, "call");
        long about = (long)number_of(l, "gpu", (ull)-1);
        if (about != -1 && about != gpu) continue;
        if (name && (!strcmp(name, call) || (!strcmp(name, "*") && gpu >= 0))) return l;
    }
    return NULL;
}

static int is_known(const device *d) {
    return (d >= gpus && d < gpus + GPUS_MAX)
        || (d >= &migs[0][0] && d < &migs[0][0] + GPUS_MAX * MIGS_MAX);
}

/* What every call begins with: read the file, hang or fail as it says. */
static int begin(const char *call, int gpu) {
    world *w = &the_world;
    if (!load(w)) return DRIVER_NOT_LOADED;
    while (rule_for(w, "hang", call, gpu)) {
        usleep(2000);
        if (!load(w)) return DRIVER_NOT_LOADED;
    }
    const line *lag = rule_for(w, "lag", call, gpu);
    if (lag) usleep((useconds_t)number_of(lag, "ms", 0) * 1000);
    const line *error = rule_for(w, "error", call, gpu);
    if (error) return (int)number_of(error, "code", 999);
    if (!n_inits && strncmp(call, "nvmlInit", 8)) return UNINITIALIZED;
    return SUCCESS;
}

#define BEGIN(gpu) do { int code = begin(__func__, gpu); if (code) return code; } while (0)
#define BEGIN_ON(d) do { if (!is_known(d)) return INVALID_ARGUMENT; BEGIN((d)->gpu); } while (0)

static const line *line_of(const device *d) {
    int at = 0, index = 0;
    const char *kind = d->mig < 0 ? "gpu" : "mig";
    int wanted = d->mig < 0 ? d->gpu : d->mig;
    for (const line *l; (l = next_line(&the_world, kind, &at));) {
        if (d->mig >= 0 && (int)number_of(l, "gpu", 0) != d->gpu) continue;
        if (index++ == wanted) return l;
    }
    return NULL;
}

static int put_text(const line *l, const char *key, char *out, uint size) {
    const char *value = l ? value_of(l, key) : NULL;
    if (!value) return NOT_SUPPORTED;
    snprintf(out, size, "%s", value);
    for (char *c = out; *c; c++) if (*c == '_') *c = ' ';
    return SUCCESS;
}

static int put_uint(const device *d, const char *key, uint *out) {
    const line *l = line_of(d);
    if (!l || !value_of(l, key)) return NOT_SUPPORTED;
    *out = (uint)number_of(l, key, 0);
    return SUCCESS;
}

/* The library. */

int nvmlInitWithFlags(uint flags) {
    (void)flags;
    BEGIN(-1);
    int at = 0;
    const line *driver = next_line(&the_world, "driver", &at);
    const char *build = driver ? value_of(driver, "nvml") : NULL;
    if (build && strcmp(build, NVML_BUILD)) return 18; /* The driver is of another version. */
    for (int g = 0; g < GPUS_MAX; g++) {
        gpus[g] = (device){g, -1};
        for (int m = 0; m < MIGS_MAX; m++) migs[g][m] = (device){g, m};
    }
    n_inits++;
    return SUCCESS;
}

int nvmlShutdown(void) {
    BEGIN(-1);
    n_inits--;
    return SUCCESS;
}

const char *nvmlErrorString(int code) { (void)code; return "fake error"; }

int nvmlSystemGetDriverVersion(char *out, uint size) {
    BEGIN(-1);
    int at = 0;
    return put_text(next_line(&the_world, "driver", &at), "version", out, size);
}

int nvmlSystemGetNVMLVersion(char *out, uint size) {
    BEGIN(-1);
    snprintf(out, size, "%s", NVML_BUILD);
    return SUCCESS;
}

int nvmlSystemGetCudaDriverVersion_v2(int *out) {
    BEGIN(-1);
    int at = 0;
    const line *l = next_line(&the_world, "driver", &at);
    if (!l || !value_of(l, "cuda")) return NOT_SUPPORTED;
    *out = (int)number_of(l, "cuda", 0);
    return SUCCESS;
}

int nvmlDeviceGetCount_v2(uint *out) {
    BEGIN(-1);
    int at = 0;
    for (*out = 0; next_line(&the_world, "gpu", &at); ++*out) {}
    return SUCCESS;
}

int nvmlDeviceGetHandleByIndex_v2(uint index, device **out) {
    if (index >= GPUS_MAX) return INVALID_ARGUMENT;
    BEGIN((int)index);
    *out = &gpus[index];
    return line_of(*out) ? SUCCESS : INVALID_ARGUMENT;
}

int nvmlDeviceGetUUID(device *d, char *out, uint size) {
    BEGIN_ON(d);
    return put_text(line_of(d), "uuid", out, size);
}

int nvmlDeviceGetName(device *d, char *out, uint size) {
    BEGIN_ON(d);
    return put_text(line_of(d), "name", out, size);
}

int nvmlDeviceGetMemoryInfo(device *d, ull out[3]) {
    BEGIN_ON(d);
    const line *l = line_of(d);
    if (!l || !value_of(l, "total")) return NOT_SUPPORTED;
    out[0] = number_of(l, "total", 0);
    out[2] = number_of(l, "used", 0);
    out[1] = out[0] - out[2];
    return SUCCESS;
}

static int processes(const device *d, const char *kind, uint *count, process_info *out) {
    uint found = 0, room = *count;
    int at = 0;
    for (const line *l; (l = next_line(&the_world, "process", &at));) {
        if ((int)number_of(l, "gpu", 0) != d->gpu || strcmp(value_of(l, "kind"), kind)) continue;
        if ((int)number_of(l, "mig", (ull)-1) != d->mig) continue;
        if (found < room && out) {
            uint gi = d->mig < 0 ? (uint)-1 : (uint)d->mig;
            out[found] = (process_info){(uint)number_of(l, "pid", 0), number_of(l, "bytes", 0),
                                        gi, gi};
        }
        found++;
    }
    *count = found;
    return found > room ? INSUFFICIENT_SIZE : SUCCESS;
}

int nvmlDeviceGetComputeRunningProcesses_v3(device *d, uint *count, process_info *out) {
    BEGIN_ON(d);
    return processes(d, "compute", count, out);
}

int nvmlDeviceGetComputeRunningProcesses_v2(device *d, uint *count, process_info *out) {
    BEGIN_ON(d);
    return processes(d, "compute", count, out);
}

int nvmlDeviceGetGraphicsRunningProcesses_v3(device *d, uint *count, process_info *out) {
    BEGIN_ON(d);
    return processes(d, "graphics", count, out);
}

int nvmlDeviceGetGraphicsRunningProcesses_v2(device *d, uint *count, process_info *out) {
    BEGIN_ON(d);
    return processes(d, "graphics", count, out);
}

int nvmlDeviceGetUtilizationRates(device *d, uint out[2]) {
    BEGIN_ON(d);
    int code = put_uint(d, "busy", &out[0]);
    return code ? code : put_uint(d, "membusy", &out[1]);
}

int nvmlDeviceGetTemperature(device *d, uint sensor, uint *out) {
    (void)sensor;
    BEGIN_ON(d);
    return put_uint(d, "temp", out);
}

int nvmlDeviceGetTemperatureThreshold(device *d, uint which, uint *out) {
    BEGIN_ON(d);
    return put_uint(d, which == 0 ? "shutdown" : "slowdown", out);
}

int nvmlDeviceGetPowerUsage(device *d, uint *out) {
    BEGIN_ON(d);
    return put_uint(d, "power", out);
}

int nvmlDeviceGetEnforcedPowerLimit(device *d, uint *out) {
    BEGIN_ON(d);
    return put_uint(d, "limit", out);
}

int nvmlDeviceGetClockInfo(device *d, uint which, uint *out) {
    BEGIN_ON(d);
    return put_uint(d, which == 1 ? "sm" : "mem", out);
}

int nvmlDeviceGetMaxClockInfo(device *d, uint which, uint *out) {
    BEGIN_ON(d);
    return put_uint(d, which == 1 ? "smmax" : "memmax", out);
}

int nvmlDeviceGetTotalEccErrors(device *d, uint type, uint counter, ull *out) {
    (void)counter;
    BEGIN_ON(d);
    const line *l = line_of(d);
    const char *key = type == 0 ? "corrected" : "uncorrected";
    if (!l || !value_of(l, key)) return NOT_SUPPORTED;
    *out = number_of(l, key, 0);
    return SUCCESS;
}

int nvmlDeviceGetCudaComputeCapability(device *d, int *major, int *minor) {
    BEGIN_ON(d);
    uint both = 0;
    int code = put_uint(d, "cc", &both);
    *major = (int)(both / 10);
    *minor = (int)(both % 10);
    return code;
}

int nvmlDeviceGetPersistenceMode(device *d, uint *out) {
    BEGIN_ON(d);
    return put_uint(d, "persistence", out);
}

int nvmlDeviceGetMinorNumber(device *d, uint *out) {
    BEGIN_ON(d);
    return put_uint(d, "minor", out);
}

int nvmlDeviceGetCurrentClocksEventReasons(device *d, ull *out) {
    BEGIN_ON(d);
    uint reasons = 0;
    int code = put_uint(d, "throttle", &reasons);
    *out = reasons;
    return code;
}

int nvmlDeviceGetPciInfo_v3(device *d, char *out) {
    BEGIN_ON(d);
    memset(out, 0, 68); /* Two texts around five numbers; only the last text is filled. */
    return put_text(line_of(d), "pci", out + 36, 32);
}

/* MIG. */

int nvmlDeviceGetMigMode(device *d, uint *current, uint *pending) {
    BEGIN_ON(d);
    int code = put_uint(d, "divided", current);
    *pending = *current;
    return code;
}

int nvmlDeviceGetMaxMigDeviceCount(device *d, uint *out) {
    BEGIN_ON(d);
    *out = 7;
    return SUCCESS;
}

int nvmlDeviceGetMigDeviceHandleByIndex(device *d, uint index, device **out) {
    BEGIN_ON(d);
    if (index >= MIGS_MAX) return INVALID_ARGUMENT;
    *out = &migs[d->gpu][index];
    return line_of(*out) ? SUCCESS : NOT_FOUND;
}

int nvmlDeviceGetGpuInstanceId(device *d, uint *out) {
    BEGIN_ON(d);
    return put_uint(d, "gi", out);
}

int nvmlDeviceGetComputeInstanceId(device *d, uint *out) {
    BEGIN_ON(d);
    return put_uint(d, "ci", out);
}

/* Events. */

int nvmlEventSetCreate(event_set **out) {
    BEGIN(-1);
    *out = calloc(1, sizeof **out);
    int at = 0; /* What happened before is not told. */
    for (const line *l; (l = next_line(&the_world, "event", &at));)
        (*out)->last_seq = number_of(l, "seq", 0);
    return SUCCESS;
}

int nvmlEventSetFree(event_set *set) {
    BEGIN(-1);
    free(set);
    return SUCCESS;
}

int nvmlDeviceGetSupportedEventTypes(device *d, ull *out) {
    BEGIN_ON(d);
    uint types = 0;
    int code = put_uint(d, "events", &types);
    *out = types;
    return code;
}

int nvmlDeviceRegisterEvents(device *d, ull types, event_set *set) {
    (void)types, (void)set;
    BEGIN_ON(d);
    return SUCCESS;
}

int nvmlEventSetWait_v2(event_set *set, event_data *out, uint timeout_ms) {
    for (long left_us = (long)timeout_ms * 1000;; left_us -= 2000) {
        BEGIN(-1);
        int at = 0;
        for (const line *l; (l = next_line(&the_world, "event", &at));) {
            ull seq = number_of(l, "seq", 0);
            if (seq <= set->last_seq) continue;
            set->last_seq = seq;
            *out = (event_data){&gpus[number_of(l, "gpu", 0) % GPUS_MAX], number_of(l, "type", 0),
                                number_of(l, "data", 0), (uint)number_of(l, "gi", (uint)-1),
                                (uint)number_of(l, "ci", (uint)-1)};
            return SUCCESS;
        }
        if (left_us <= 0) return TIMEOUT;
        usleep(2000);
    }
}

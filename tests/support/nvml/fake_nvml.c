/* A scripted libnvidia-ml.so.1: answers what tests/support/nvml/control.py wrote into the file named by FAKE_NVML_STATE.
 *
 * Signatures, structures, sizes and size-then-fill rules are those of nvml.h as nvidia-ml-py 13 calls them. Each
 * function counts its call, does what its script says (delay, hang, fail) and only then reads the state.
 */

#define _GNU_SOURCE
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

enum {
    SUCCESS = 0, UNINITIALIZED = 1, INVALID_ARGUMENT = 2, NOT_SUPPORTED = 3, NO_PERMISSION = 4, NOT_FOUND = 6,
    INSUFFICIENT_SIZE = 7, DRIVER_NOT_LOADED = 9, TIMED_OUT = 10, FUNCTION_NOT_FOUND = 13, GPU_IS_LOST = 15,
    RESET_REQUIRED = 16, LIB_RM_VERSION_MISMATCH = 18, MEMORY = 20, ARGUMENT_VERSION_MISMATCH = 25, UNKNOWN = 999
};

enum { MAX_GPUS = 16, MAX_MIG = 7, MAX_PROCESSES = 32, MAX_SAMPLES = 256, MAX_FIELD_SCRIPTS = 16,
       MAX_FUNCTIONS = 96, MAX_GPM = 128, SCOPES = 4, REASONS = 4, MAX_XIDS = 16 };

enum { CRASH = 2 }; /* instead of hanging, once */

static const uint64_t MAGIC = 0x4C4D564E454B4146;
static const uint32_t NO_INSTANCE = 0xFFFFFFFF;

/* --- the state file, as control.py declares it ------------------------------------------------------------------ */

struct process { uint64_t memory_bytes; uint32_t pid, kind; int32_t mig; uint32_t reserved; };

enum engine { SM, MEMORY_BUS, ENCODER, DECODER, JPEG, OFA, ENGINES };

struct sample { uint64_t timestamp_us; uint32_t pid, use[ENGINES], reserved; };

struct field { uint32_t field; int32_t scope, code, value_type; };

struct mig {
    char name[96], uuid[96];
    uint64_t memory_total, memory_used;
    uint32_t present, gpu_instance, compute_instance, sm_count, gpu_slices, compute_slices;
    double gpm[MAX_GPM];
};

struct gpu {
    char name[96], uuid[96];
    uint32_t present, lost, pci_domain, pci_bus, pci_device, pci_device_id, pci_subsystem_id, architecture;
    uint32_t mig_mode, mig_capable, gpm_supported, every_sample, power_limit_mw, util_gpu, util_memory;
    uint32_t temperature, performance_state, samples_written;
    uint32_t clocks_mhz[4], power_average_mw[SCOPES], power_instant_mw[SCOPES];
    uint64_t energy_mj[SCOPES], throttle_ns[REASONS], event_reasons;
    uint64_t stamp_us, ecc[2], xids[MAX_XIDS], xids_written, repair_pending, repair_failed;
    uint64_t memory_total, memory_reserved, memory_used;
    double gpm[MAX_GPM];
    struct field fields[MAX_FIELD_SCRIPTS];
    struct process processes[MAX_PROCESSES * (MAX_MIG + 1)];
    struct sample samples[MAX_SAMPLES];
    struct mig migs[MAX_MIG];
};

struct script { _Atomic int32_t code; _Atomic uint32_t times; uint32_t delay_us; _Atomic uint32_t hang; };

struct function {
    char name[64];
    _Atomic uint32_t hanging;
    uint32_t reserved;
    _Atomic uint64_t calls[MAX_GPUS + 1];
    struct script scripts[MAX_GPUS + 1];
};

struct state {
    uint64_t magic, bytes;
    char driver_version[80], nvml_version[80];
    uint32_t cuda_version;
    int32_t broken;
    uint32_t wide_processes, release;
    struct function functions[MAX_FUNCTIONS];
    struct gpu gpus[MAX_GPUS];
};

_Static_assert(sizeof(struct mig) == MIG_BYTES, "control.py declares another struct mig");
_Static_assert(sizeof(struct gpu) == GPU_BYTES, "control.py declares another struct gpu");
_Static_assert(sizeof(struct function) == FUNCTION_BYTES, "control.py declares another struct function");
_Static_assert(sizeof(struct state) == STATE_BYTES, "control.py declares another struct state");

/* --- what this process holds ------------------------------------------------------------------------------------ */

struct handle { int gpu, mig; };
typedef struct handle *device_t;

static struct state *state;
static struct handle handles[MAX_GPUS][MAX_MIG + 1]; /* the last of a row is the GPU itself */
static atomic_int initialised;
static uint32_t loaded; /* the release that this process loaded; after an upgrade only another process can */
static pthread_mutex_t attaching = PTHREAD_MUTEX_INITIALIZER;
static struct stat attached;

/* Map the file that the environment names now, unless it is mapped already; with another file all begins anew. The old
 * one stays mapped: a call in another thread may be reading it. */
static void attach(void) {
    pthread_mutex_lock(&attaching);
    for (int gpu = 0; gpu < MAX_GPUS; gpu++)
        for (int mig = 0; mig <= MAX_MIG; mig++)
            handles[gpu][mig] = (struct handle){gpu, mig == MAX_MIG ? -1 : mig};
    const char *path = getenv("FAKE_NVML_STATE");
    int file = path ? open(path, O_RDWR | O_CLOEXEC) : -1;
    struct stat found;
    if (file < 0 || fstat(file, &found) || found.st_size != sizeof(struct state)) {
        fprintf(stderr, "fake NVML: FAKE_NVML_STATE (%s) names no state file of %zu bytes\n", path ? path : "unset",
                sizeof(struct state));
        state = NULL;
    } else if (!state || found.st_ino != attached.st_ino || found.st_dev != attached.st_dev) {
        void *mapped = mmap(NULL, sizeof(struct state), PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
        state = mapped != MAP_FAILED && ((struct state *)mapped)->magic == MAGIC ? mapped : NULL;
        attached = found;
        initialised = 0;
        loaded = state ? state->release : 0;
    }
    if (file >= 0)
        close(file);
    pthread_mutex_unlock(&attaching);
}

static bool ready(void) {
    if (!state)
        attach();
    return state != NULL;
}

static bool known(const struct handle *device) {
    const char *at = (const char *)device, *from = (const char *)handles, *to = from + sizeof handles;
    return at >= from && at < to && (size_t)(at - from) % sizeof(struct handle) == 0;
}

static struct gpu *gpu_of(device_t device) { return &state->gpus[device->gpu]; }

static struct mig *mig_of(device_t device) { return device->mig < 0 ? NULL : &gpu_of(device)->migs[device->mig]; }

static device_t handle_of(int gpu) { return &handles[gpu][MAX_MIG]; }

static uint64_t now_us(void) {
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    return (uint64_t)now.tv_sec * 1000000 + (uint64_t)now.tv_nsec / 1000;
}

/* Asleep, or with FAKE_NVML_BUSY computing, as a driver that polls its device. */
static void rest(uint64_t microseconds) {
    if (getenv("FAKE_NVML_BUSY")) {
        struct timespec now;
        clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
        uint64_t until = (uint64_t)now.tv_sec * 1000000 + (uint64_t)now.tv_nsec / 1000 + microseconds;
        while ((uint64_t)now.tv_sec * 1000000 + (uint64_t)now.tv_nsec / 1000 < until)
            clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
        return;
    }
    struct timespec left = {(time_t)(microseconds / 1000000), (long)(microseconds % 1000000) * 1000};
    while (nanosleep(&left, &left)) {
    }
}

/* --- scripts ---------------------------------------------------------------------------------------------------- */

static int find_function(const char *name) {
    for (int place = 0; place < MAX_FUNCTIONS; place++)
        if (strcmp(state->functions[place].name, name) == 0)
            return place;
    fprintf(stderr, "fake NVML: %s is not in the state file\n", name);
    abort();
}

static int play(struct function *function, int place) {
    struct script *script = &function->scripts[place];
    atomic_fetch_add(&function->calls[place], 1);
    if (script->delay_us)
        rest(script->delay_us);
    if (script->hang == CRASH) {
        script->hang = 0;
        raise(SIGSEGV);
    }
    if (script->hang) {
        atomic_fetch_add(&function->hanging, 1);
        while (script->hang)
            rest(1000);
        atomic_fetch_sub(&function->hanging, 1);
    }
    int code = script->code;
    if (code && script->times && atomic_fetch_sub(&script->times, 1) == 1)
        script->code = SUCCESS;
    return code;
}

enum wants { NOTHING, LIBRARY, DEVICE, CARD };

/* Count, delay, hang, fail; then what every function checks: the library, the driver, the handle. */
static int enter(int *site, const char *name, device_t device, enum wants wants) {
    if (!ready())
        return DRIVER_NOT_LOADED;
    if (*site < 0)
        *site = find_function(name);
    struct function *function = &state->functions[*site];
    int code = play(function, 0);
    if (known(device)) {
        int own = play(function, device->gpu + 1);
        code = own ? own : code;
    }
    if (code)
        return code;
    if (wants == NOTHING)
        return SUCCESS;
    if (!initialised)
        return UNINITIALIZED;
    if (state->broken)
        return state->broken;
    if (state->release != loaded)
        return LIB_RM_VERSION_MISMATCH;
    if (wants == LIBRARY)
        return SUCCESS;
    if (!known(device))
        return INVALID_ARGUMENT;
    if (gpu_of(device)->lost || !gpu_of(device)->present)
        return GPU_IS_LOST;
    if (mig_of(device) && !mig_of(device)->present)
        return INVALID_ARGUMENT;
    return wants == CARD && mig_of(device) ? NOT_SUPPORTED : SUCCESS;
}

#define ENTER(device, wants)                                                                                           \
    do {                                                                                                               \
        static int site = -1;                                                                                          \
        int code = enter(&site, __func__, device, wants);                                                              \
        if (code)                                                                                                      \
            return code;                                                                                               \
    } while (0)

/* control.py finds the functions by this word at the start of a line. */
#define NVML(name) int name

static int text(char *to, unsigned length, const char *from) {
    if (strlen(from) >= length)
        return INSUFFICIENT_SIZE;
    strcpy(to, from);
    return SUCCESS;
}

static int number(unsigned *to, uint32_t from) {
    if (from == UINT32_MAX)
        return NOT_SUPPORTED;
    *to = from;
    return SUCCESS;
}

/* --- system ----------------------------------------------------------------------------------------------------- */

static int initialise(void) {
    if (state->broken)
        return state->broken;
    if (state->release != loaded)
        return LIB_RM_VERSION_MISMATCH;
    atomic_fetch_add(&initialised, 1);
    return SUCCESS;
}

NVML(nvmlInitWithFlags)(unsigned flags) {
    (void)flags;
    attach();
    ENTER(NULL, NOTHING);
    return initialise();
}

NVML(nvmlInit_v2)(void) {
    attach();
    ENTER(NULL, NOTHING);
    return initialise();
}

NVML(nvmlShutdown)(void) {
    ENTER(NULL, NOTHING);
    int before = initialised;
    do {
        if (before == 0)
            return UNINITIALIZED;
    } while (!atomic_compare_exchange_weak(&initialised, &before, before - 1));
    return SUCCESS;
}

const char *nvmlErrorString(int result) {
    switch (result) {
    case SUCCESS: return "The operation was successful";
    case UNINITIALIZED: return "Uninitialized";
    case INVALID_ARGUMENT: return "Invalid Argument";
    case NOT_SUPPORTED: return "Not Supported";
    case NO_PERMISSION: return "Insufficient Permissions";
    case NOT_FOUND: return "Not Found";
    case INSUFFICIENT_SIZE: return "Insufficient Size";
    case DRIVER_NOT_LOADED: return "Driver Not Loaded";
    case TIMED_OUT: return "Timeout";
    case FUNCTION_NOT_FOUND: return "Function Not Found";
    case GPU_IS_LOST: return "GPU is lost";
    case RESET_REQUIRED: return "GPU requires reset";
    case LIB_RM_VERSION_MISMATCH: return "Driver/library version mismatch";
    case MEMORY: return "Insufficient Memory";
    case ARGUMENT_VERSION_MISMATCH: return "Argument version mismatch";
    default: return "Unknown Error";
    }
}

NVML(nvmlSystemGetDriverVersion)(char *version, unsigned length) {
    ENTER(NULL, LIBRARY);
    return text(version, length, state->driver_version);
}

NVML(nvmlSystemGetNVMLVersion)(char *version, unsigned length) {
    ENTER(NULL, LIBRARY);
    return text(version, length, state->nvml_version);
}

NVML(nvmlSystemGetCudaDriverVersion)(int *version) {
    ENTER(NULL, LIBRARY);
    *version = (int)state->cuda_version;
    return SUCCESS;
}

/* --- finding devices -------------------------------------------------------------------------------------------- */

struct pci {
    char legacy_id[16];
    unsigned domain, bus, device, device_id, subsystem_id;
    char id[32];
};

static void describe_pci(const struct gpu *gpu, struct pci *pci) {
    memset(pci, 0, sizeof *pci);
    snprintf(pci->legacy_id, sizeof pci->legacy_id, "%04X:%02X:%02X.0", gpu->pci_domain & 0xFFFF, gpu->pci_bus & 0xFF,
             gpu->pci_device & 0xFF);
    snprintf(pci->id, sizeof pci->id, "%08X:%02X:%02X.0", gpu->pci_domain, gpu->pci_bus & 0xFF, gpu->pci_device & 0xFF);
    pci->domain = gpu->pci_domain;
    pci->bus = gpu->pci_bus;
    pci->device = gpu->pci_device;
    pci->device_id = gpu->pci_device_id;
    pci->subsystem_id = gpu->pci_subsystem_id;
}

static unsigned present_before(int gpu) {
    unsigned count = 0;
    for (int slot = 0; slot < gpu; slot++)
        count += state->gpus[slot].present != 0;
    return count;
}

NVML(nvmlDeviceGetCount_v2)(unsigned *count) {
    ENTER(NULL, LIBRARY);
    *count = present_before(MAX_GPUS);
    return SUCCESS;
}

NVML(nvmlDeviceGetHandleByIndex_v2)(unsigned index, device_t *device) {
    device_t found = NULL;
    for (int slot = 0; ready() && slot < MAX_GPUS; slot++)
        if (state->gpus[slot].present && present_before(slot) == index)
            found = handle_of(slot);
    ENTER(found, found ? DEVICE : LIBRARY);
    *device = found;
    return found ? SUCCESS : INVALID_ARGUMENT;
}

NVML(nvmlDeviceGetHandleByUUID)(const char *uuid, device_t *device) {
    device_t found = NULL;
    for (int slot = 0; ready() && uuid && slot < MAX_GPUS; slot++) {
        const struct gpu *gpu = &state->gpus[slot];
        if (gpu->present && strcmp(gpu->uuid, uuid) == 0)
            found = handle_of(slot);
        for (int mig = 0; gpu->present && mig < MAX_MIG; mig++)
            if (gpu->migs[mig].present && strcmp(gpu->migs[mig].uuid, uuid) == 0)
                found = &handles[slot][mig];
    }
    ENTER(found, found ? DEVICE : LIBRARY);
    *device = found;
    return found ? SUCCESS : NOT_FOUND;
}

NVML(nvmlDeviceGetHandleByPciBusId_v2)(const char *id, device_t *device) {
    device_t found = NULL;
    for (int slot = 0; ready() && id && slot < MAX_GPUS; slot++) {
        struct pci pci;
        describe_pci(&state->gpus[slot], &pci);
        if (state->gpus[slot].present && (strcasecmp(pci.id, id) == 0 || strcasecmp(pci.legacy_id, id) == 0))
            found = handle_of(slot);
    }
    ENTER(found, found ? DEVICE : LIBRARY);
    *device = found;
    return found ? SUCCESS : NOT_FOUND;
}

/* --- what a device is ------------------------------------------------------------------------------------------- */

NVML(nvmlDeviceGetName)(device_t device, char *name, unsigned length) {
    ENTER(device, DEVICE);
    return text(name, length, mig_of(device) ? mig_of(device)->name : gpu_of(device)->name);
}

NVML(nvmlDeviceGetUUID)(device_t device, char *uuid, unsigned length) {
    ENTER(device, DEVICE);
    return text(uuid, length, mig_of(device) ? mig_of(device)->uuid : gpu_of(device)->uuid);
}

NVML(nvmlDeviceGetIndex)(device_t device, unsigned *index) {
    ENTER(device, DEVICE);
    *index = device->mig < 0 ? present_before(device->gpu) : (unsigned)device->mig;
    return SUCCESS;
}

NVML(nvmlDeviceGetMinorNumber)(device_t device, unsigned *minor) {
    ENTER(device, CARD);
    *minor = (unsigned)device->gpu;
    return SUCCESS;
}

NVML(nvmlDeviceGetPciInfo_v3)(device_t device, struct pci *pci) {
    ENTER(device, DEVICE);
    describe_pci(gpu_of(device), pci);
    return SUCCESS;
}

NVML(nvmlDeviceGetArchitecture)(device_t device, unsigned *architecture) {
    ENTER(device, DEVICE);
    *architecture = gpu_of(device)->architecture;
    return SUCCESS;
}

/* --- energy and power ------------------------------------------------------------------------------------------- */

NVML(nvmlDeviceGetTotalEnergyConsumption)(device_t device, unsigned long long *millijoules) {
    ENTER(device, CARD);
    uint64_t energy = gpu_of(device)->energy_mj[0];
    if (energy == UINT64_MAX)
        return NOT_SUPPORTED;
    *millijoules = energy;
    return SUCCESS;
}

NVML(nvmlDeviceGetPowerUsage)(device_t device, unsigned *milliwatts) {
    ENTER(device, CARD);
    return number(milliwatts, gpu_of(device)->power_average_mw[0]);
}

NVML(nvmlDeviceGetEnforcedPowerLimit)(device_t device, unsigned *milliwatts) {
    ENTER(device, CARD);
    return number(milliwatts, gpu_of(device)->power_limit_mw);
}

NVML(nvmlDeviceGetPowerManagementLimit)(device_t device, unsigned *milliwatts) {
    ENTER(device, CARD);
    return number(milliwatts, gpu_of(device)->power_limit_mw);
}

enum value_type { DOUBLE, UNSIGNED_INT, UNSIGNED_LONG, UNSIGNED_LONG_LONG, SIGNED_LONG_LONG, SIGNED_INT,
                  UNSIGNED_SHORT };

struct field_value {
    unsigned field, scope;
    long long timestamp, latency_us;
    unsigned value_type;
    int result;
    union {
        double d;
        unsigned ui;
        unsigned long ul;
        unsigned long long ull;
        long long sll;
        int si;
        unsigned short us;
    } value;
};
_Static_assert(sizeof(struct field_value) == 40, "nvmlFieldValue_t");

/* Value and natural type of a field; all ones where there is none. */
static uint64_t field_number(const struct gpu *gpu, unsigned field, unsigned scope, unsigned *type) {
    static const unsigned reasons[REASONS] = {74, 269, 270, 271};
    uint32_t power = UINT32_MAX;
    *type = UNSIGNED_LONG_LONG;
    for (int place = 0; place < REASONS; place++)
        if (field == reasons[place])
            return gpu->throttle_ns[place];
    if (field == 5 || field == 6)
        return gpu->ecc[field - 5];
    *type = UNSIGNED_INT;
    if (field == 144)
        return gpu->repair_pending;
    if (field == 145)
        return gpu->repair_failed;
    *type = UNSIGNED_LONG_LONG;
    if (scope >= SCOPES)
        return UINT64_MAX;
    if (field == 83 || field == 191)
        return gpu->energy_mj[scope];
    *type = UNSIGNED_INT;
    if (field == 185)
        power = gpu->power_average_mw[scope];
    else if (field == 186)
        power = gpu->power_instant_mw[scope];
    else if (field == 190)
        power = gpu->power_limit_mw;
    return power == UINT32_MAX ? UINT64_MAX : power;
}

static void answer_field(const struct gpu *gpu, struct field_value *asked) {
    unsigned type;
    uint64_t value = field_number(gpu, asked->field, asked->scope, &type);
    asked->result = value == UINT64_MAX ? NOT_SUPPORTED : SUCCESS;
    for (int place = 0; place < MAX_FIELD_SCRIPTS; place++) {
        const struct field *script = &gpu->fields[place];
        if (script->field != asked->field || (script->scope >= 0 && (unsigned)script->scope != asked->scope))
            continue;
        type = script->value_type < 0 ? type : (unsigned)script->value_type;
        asked->result = script->code ? script->code : asked->result;
        break;
    }
    asked->value_type = type;
    if (asked->result)
        return;
    asked->value.ull = 0;
    switch (type) {
    case DOUBLE: asked->value.d = (double)value; break;
    case UNSIGNED_INT: asked->value.ui = (unsigned)value; break;
    case UNSIGNED_LONG: asked->value.ul = (unsigned long)value; break;
    case SIGNED_LONG_LONG: asked->value.sll = (long long)value; break;
    case SIGNED_INT: asked->value.si = (int)value; break;
    case UNSIGNED_SHORT: asked->value.us = (unsigned short)value; break;
    default: asked->value.ull = value;
    }
}

NVML(nvmlDeviceGetFieldValues)(device_t device, int count, struct field_value *values) {
    ENTER(device, CARD);
    if (count <= 0 || !values)
        return INVALID_ARGUMENT;
    for (int place = 0; place < count; place++) {
        values[place].timestamp = (long long)(gpu_of(device)->stamp_us ? gpu_of(device)->stamp_us : now_us());
        values[place].latency_us = 1;
        answer_field(gpu_of(device), &values[place]);
    }
    return SUCCESS;
}

/* --- how it is used --------------------------------------------------------------------------------------------- */

NVML(nvmlDeviceGetUtilizationRates)(device_t device, unsigned *rates) {
    ENTER(device, CARD);
    const struct gpu *gpu = gpu_of(device);
    if (gpu->mig_mode)
        return NOT_SUPPORTED;
    int code = number(&rates[0], gpu->util_gpu);
    return code ? code : number(&rates[1], gpu->util_memory);
}

static void memory_of(device_t device, uint64_t *total, uint64_t *reserved, uint64_t *used) {
    const struct mig *mig = mig_of(device);
    *total = mig ? mig->memory_total : gpu_of(device)->memory_total;
    *reserved = mig ? 0 : gpu_of(device)->memory_reserved;
    *used = mig ? mig->memory_used : gpu_of(device)->memory_used;
}

static uint64_t free_bytes(uint64_t total, uint64_t used) { return total > used ? total - used : 0; }

NVML(nvmlDeviceGetMemoryInfo)(device_t device, unsigned long long *memory) {
    uint64_t total, reserved, used;
    ENTER(device, DEVICE);
    memory_of(device, &total, &reserved, &used);
    if (total == UINT64_MAX || used == UINT64_MAX)
        return NOT_SUPPORTED;
    memory[0] = total;
    memory[1] = free_bytes(total, used + reserved);
    memory[2] = used + reserved;
    return SUCCESS;
}

struct memory_v2 { unsigned version; unsigned long long total, reserved, free, used; };

NVML(nvmlDeviceGetMemoryInfo_v2)(device_t device, struct memory_v2 *memory) {
    uint64_t total, reserved, used;
    ENTER(device, DEVICE);
    if (memory->version != (sizeof(struct memory_v2) | 2 << 24))
        return ARGUMENT_VERSION_MISMATCH;
    memory_of(device, &total, &reserved, &used);
    if (total == UINT64_MAX || used == UINT64_MAX)
        return NOT_SUPPORTED;
    memory->total = total;
    memory->reserved = reserved;
    memory->free = free_bytes(total, used + reserved);
    memory->used = used;
    return SUCCESS;
}

/* Newer than `since`: the mean for each process, or every sample; oldest first. Returns how many. */
static unsigned used_since(const struct gpu *gpu, uint64_t since, struct sample *found) {
    uint64_t sums[MAX_SAMPLES][ENGINES], counts[MAX_SAMPLES];
    unsigned count = 0;
    for (unsigned step = 0; step < MAX_SAMPLES; step++) {
        const struct sample *sample = &gpu->samples[(gpu->samples_written + step) % MAX_SAMPLES];
        if (sample->timestamp_us == 0 || sample->timestamp_us <= since)
            continue;
        unsigned at = 0;
        while (!gpu->every_sample && at < count && found[at].pid != sample->pid)
            at++;
        if (gpu->every_sample || at == count) {
            at = count++;
            found[at] = *sample;
            memset(sums[at], 0, sizeof sums[at]);
            counts[at] = 0;
        }
        for (int engine = 0; engine < ENGINES; engine++)
            sums[at][engine] += sample->use[engine];
        counts[at]++;
        if (sample->timestamp_us > found[at].timestamp_us)
            found[at].timestamp_us = sample->timestamp_us;
    }
    for (unsigned at = 0; at < count; at++)
        for (int engine = 0; engine < ENGINES; engine++)
            found[at].use[engine] = (uint32_t)((sums[at][engine] + counts[at] / 2) / counts[at]);
    return count;
}

struct use_sample { unsigned pid; unsigned long long timestamp; unsigned sm, memory, encoder, decoder; };
_Static_assert(sizeof(struct use_sample) == 32, "nvmlProcessUtilizationSample_t");

NVML(nvmlDeviceGetProcessUtilization)(device_t device, struct use_sample *samples, unsigned *count,
                                      unsigned long long since) {
    struct sample found[MAX_SAMPLES];
    ENTER(device, CARD);
    if (gpu_of(device)->mig_mode)
        return NOT_SUPPORTED;
    unsigned there = used_since(gpu_of(device), since, found), room = samples ? *count : 0;
    *count = there;
    if (there == 0)
        return NOT_FOUND;
    if (room < there)
        return INSUFFICIENT_SIZE;
    for (unsigned at = 0; at < there; at++)
        samples[at] = (struct use_sample){found[at].pid,             found[at].timestamp_us, found[at].use[SM],
                                          found[at].use[MEMORY_BUS], found[at].use[ENCODER], found[at].use[DECODER]};
    return SUCCESS;
}

struct use_info { unsigned long long timestamp; unsigned pid, sm, memory, encoder, decoder, jpeg, ofa; };
struct uses { unsigned version, count; unsigned long long since; struct use_info *infos; };
_Static_assert(sizeof(struct uses) == 24, "nvmlProcessesUtilizationInfo_v1_t");

NVML(nvmlDeviceGetProcessesUtilizationInfo)(device_t device, struct uses *uses) {
    struct sample found[MAX_SAMPLES];
    ENTER(device, CARD);
    if (uses->version != (sizeof(struct uses) | 1 << 24))
        return ARGUMENT_VERSION_MISMATCH;
    if (gpu_of(device)->mig_mode)
        return NOT_SUPPORTED;
    unsigned there = used_since(gpu_of(device), uses->since, found), room = uses->infos ? uses->count : 0;
    uses->count = there;
    if (there == 0)
        return NOT_FOUND;
    if (room < there)
        return INSUFFICIENT_SIZE;
    for (unsigned at = 0; at < there; at++)
        uses->infos[at] = (struct use_info){found[at].timestamp_us,    found[at].pid,          found[at].use[SM],
                                            found[at].use[MEMORY_BUS], found[at].use[ENCODER], found[at].use[DECODER],
                                            found[at].use[JPEG],       found[at].use[OFA]};
    return SUCCESS;
}

enum kind { COMPUTE = 1, GRAPHICS, MPS };

struct process_info { unsigned pid; unsigned long long memory; unsigned gpu_instance, compute_instance; };
_Static_assert(sizeof(struct process_info) == 24, "nvmlProcessInfo_v2_t");

/* The entry that some R535 drivers wrote under the same symbol. */
struct wide_process_info { struct process_info info; unsigned long long protected_memory; };

static int list_processes(device_t device, enum kind kind, bool wide, unsigned *count, void *infos) {
    const struct gpu *gpu = gpu_of(device);
    unsigned there = 0, room = infos ? *count : 0;
    for (unsigned place = 0; place < sizeof gpu->processes / sizeof *gpu->processes; place++) {
        const struct process *process = &gpu->processes[place];
        if (process->pid == 0 || process->kind != (uint32_t)kind || (device->mig >= 0 && process->mig != device->mig))
            continue;
        const struct mig *mig = process->mig < 0 ? NULL : &gpu->migs[process->mig];
        struct process_info info = {process->pid, process->memory_bytes, mig ? mig->gpu_instance : NO_INSTANCE,
                                    mig ? mig->compute_instance : NO_INSTANCE};
        if (there < room && wide)
            ((struct wide_process_info *)infos)[there] = (struct wide_process_info){info, 0};
        else if (there < room)
            ((struct process_info *)infos)[there] = info;
        there++;
    }
    *count = there;
    return there > room ? INSUFFICIENT_SIZE : SUCCESS;
}

NVML(nvmlDeviceGetComputeRunningProcesses_v2)(device_t device, unsigned *count, void *infos) {
    ENTER(device, DEVICE);
    return list_processes(device, COMPUTE, false, count, infos);
}

NVML(nvmlDeviceGetComputeRunningProcesses_v3)(device_t device, unsigned *count, void *infos) {
    ENTER(device, DEVICE);
    return list_processes(device, COMPUTE, state->wide_processes, count, infos);
}

NVML(nvmlDeviceGetGraphicsRunningProcesses_v2)(device_t device, unsigned *count, void *infos) {
    ENTER(device, DEVICE);
    return list_processes(device, GRAPHICS, false, count, infos);
}

NVML(nvmlDeviceGetGraphicsRunningProcesses_v3)(device_t device, unsigned *count, void *infos) {
    ENTER(device, DEVICE);
    return list_processes(device, GRAPHICS, state->wide_processes, count, infos);
}

NVML(nvmlDeviceGetMPSComputeRunningProcesses_v2)(device_t device, unsigned *count, void *infos) {
    ENTER(device, DEVICE);
    return list_processes(device, MPS, false, count, infos);
}

NVML(nvmlDeviceGetMPSComputeRunningProcesses_v3)(device_t device, unsigned *count, void *infos) {
    ENTER(device, DEVICE);
    return list_processes(device, MPS, state->wide_processes, count, infos);
}

/* --- clocks and heat -------------------------------------------------------------------------------------------- */

NVML(nvmlDeviceGetTemperature)(device_t device, unsigned sensor, unsigned *celsius) {
    ENTER(device, CARD);
    return sensor ? INVALID_ARGUMENT : number(celsius, gpu_of(device)->temperature);
}

struct temperature { unsigned version, sensor; int celsius; };

NVML(nvmlDeviceGetTemperatureV)(device_t device, struct temperature *temperature) {
    ENTER(device, CARD);
    if (temperature->version != (sizeof(struct temperature) | 1 << 24))
        return ARGUMENT_VERSION_MISMATCH;
    return temperature->sensor ? INVALID_ARGUMENT
                               : number((unsigned *)&temperature->celsius, gpu_of(device)->temperature);
}

NVML(nvmlDeviceGetClockInfo)(device_t device, unsigned clock, unsigned *megahertz) {
    ENTER(device, CARD);
    return clock < 4 ? number(megahertz, gpu_of(device)->clocks_mhz[clock]) : INVALID_ARGUMENT;
}

NVML(nvmlDeviceGetPerformanceState)(device_t device, unsigned *performance_state) {
    ENTER(device, CARD);
    return number(performance_state, gpu_of(device)->performance_state);
}

NVML(nvmlDeviceGetCurrentClocksEventReasons)(device_t device, unsigned long long *reasons) {
    ENTER(device, CARD);
    *reasons = gpu_of(device)->event_reasons;
    return SUCCESS;
}

NVML(nvmlDeviceGetCurrentClocksThrottleReasons)(device_t device, unsigned long long *reasons) {
    ENTER(device, CARD);
    *reasons = gpu_of(device)->event_reasons;
    return SUCCESS;
}

/* --- slices ----------------------------------------------------------------------------------------------------- */

NVML(nvmlDeviceGetMigMode)(device_t device, unsigned *current, unsigned *pending) {
    ENTER(device, CARD);
    if (!gpu_of(device)->mig_capable)
        return NOT_SUPPORTED;
    *current = *pending = gpu_of(device)->mig_mode;
    return SUCCESS;
}

NVML(nvmlDeviceGetMaxMigDeviceCount)(device_t device, unsigned *count) {
    ENTER(device, CARD);
    uint32_t capable = gpu_of(device)->mig_capable; /* 1: as many as there can be; else how many */
    *count = capable == 1 ? MAX_MIG : capable;
    return SUCCESS;
}

NVML(nvmlDeviceGetMigDeviceHandleByIndex)(device_t device, unsigned index, device_t *mig) {
    ENTER(device, CARD);
    if (index >= MAX_MIG)
        return INVALID_ARGUMENT;
    if (!gpu_of(device)->mig_mode)
        return NOT_SUPPORTED;
    if (!gpu_of(device)->migs[index].present)
        return NOT_FOUND;
    *mig = &handles[device->gpu][index];
    return SUCCESS;
}

NVML(nvmlDeviceGetDeviceHandleFromMigDeviceHandle)(device_t mig, device_t *device) {
    ENTER(mig, DEVICE);
    if (!mig_of(mig))
        return INVALID_ARGUMENT;
    *device = handle_of(mig->gpu);
    return SUCCESS;
}

NVML(nvmlDeviceIsMigDeviceHandle)(device_t device, unsigned *is_mig) {
    ENTER(device, DEVICE);
    *is_mig = mig_of(device) != NULL;
    return SUCCESS;
}

NVML(nvmlDeviceGetGpuInstanceId)(device_t device, unsigned *id) {
    ENTER(device, DEVICE);
    if (!mig_of(device))
        return NOT_SUPPORTED;
    *id = mig_of(device)->gpu_instance;
    return SUCCESS;
}

NVML(nvmlDeviceGetComputeInstanceId)(device_t device, unsigned *id) {
    ENTER(device, DEVICE);
    if (!mig_of(device))
        return NOT_SUPPORTED;
    *id = mig_of(device)->compute_instance;
    return SUCCESS;
}

struct attributes {
    unsigned multiprocessors, copy_engines, decoders, encoders, jpegs, ofas, gpu_slices, compute_slices;
    unsigned long long memory_mb;
};

NVML(nvmlDeviceGetAttributes_v2)(device_t device, struct attributes *attributes) {
    ENTER(device, DEVICE);
    const struct mig *mig = mig_of(device);
    if (!mig)
        return NOT_SUPPORTED;
    *attributes = (struct attributes){.multiprocessors = mig->sm_count,
                                      .copy_engines = mig->gpu_slices,
                                      .gpu_slices = mig->gpu_slices,
                                      .compute_slices = mig->compute_slices,
                                      .memory_mb = mig->memory_total >> 20};
    return SUCCESS;
}

/* --- performance metrics ---------------------------------------------------------------------------------------- */

struct gpm_support { unsigned version, supported; };
struct gpm_sample { int gpu, gpu_instance; uint64_t order; double values[MAX_GPM]; };
struct gpm_metric { unsigned id; int result; double value; const char *short_name, *long_name, *unit; };
struct gpm_metrics {
    unsigned version, count;
    struct gpm_sample *first, *second;
    struct gpm_metric metrics[]; /* how many there is room for depends on the bindings: touch only `count` */
};

NVML(nvmlGpmQueryDeviceSupport)(device_t device, struct gpm_support *support) {
    ENTER(device, DEVICE);
    if (support->version != 1)
        return ARGUMENT_VERSION_MISMATCH;
    support->supported = gpu_of(device)->gpm_supported != 0;
    return SUCCESS;
}

NVML(nvmlGpmSampleAlloc)(struct gpm_sample **sample) {
    ENTER(NULL, LIBRARY);
    *sample = calloc(1, sizeof **sample);
    return *sample ? SUCCESS : MEMORY;
}

NVML(nvmlGpmSampleFree)(struct gpm_sample *sample) {
    ENTER(NULL, LIBRARY);
    free(sample);
    return SUCCESS;
}

static int take(struct gpm_sample *sample, device_t device, int gpu_instance, const double *values) {
    static _Atomic uint64_t order;
    if (!gpu_of(device)->gpm_supported)
        return NOT_SUPPORTED;
    if (!sample)
        return INVALID_ARGUMENT;
    sample->gpu = device->gpu;
    sample->gpu_instance = gpu_instance;
    sample->order = atomic_fetch_add(&order, 1) + 1;
    memcpy(sample->values, values, sizeof sample->values);
    return SUCCESS;
}

NVML(nvmlGpmSampleGet)(device_t device, struct gpm_sample *sample) {
    ENTER(device, CARD);
    return take(sample, device, -1, gpu_of(device)->gpm);
}

NVML(nvmlGpmMigSampleGet)(device_t device, unsigned gpu_instance, struct gpm_sample *sample) {
    ENTER(device, CARD);
    for (int place = 0; place < MAX_MIG; place++) {
        const struct mig *mig = &gpu_of(device)->migs[place];
        if (mig->present && mig->gpu_instance == gpu_instance)
            return take(sample, device, (int)gpu_instance, mig->gpm);
    }
    return gpu_of(device)->mig_mode ? NOT_FOUND : NOT_SUPPORTED;
}

/* The value is the one that was set when the second sample was taken. */
NVML(nvmlGpmMetricsGet)(struct gpm_metrics *asked) {
    ENTER(NULL, LIBRARY);
    const struct gpm_sample *first = asked->first, *second = asked->second;
    if (asked->version != 1)
        return ARGUMENT_VERSION_MISMATCH;
    if (!first || !second || !first->order || first->order >= second->order || first->gpu != second->gpu ||
        first->gpu_instance != second->gpu_instance)
        return INVALID_ARGUMENT;
    for (unsigned at = 0; at < asked->count; at++) {
        struct gpm_metric *metric = &asked->metrics[at];
        bool there = metric->id < MAX_GPM && second->values[metric->id] >= 0;
        metric->result = there ? SUCCESS : NOT_SUPPORTED;
        metric->value = there ? second->values[metric->id] : 0;
        metric->short_name = metric->long_name = "scripted";
        metric->unit = "%";
    }
    return SUCCESS;
}

/* --- events: Xid errors only, one queue for each set; each tells what happened since the card was registered ------ */

struct event_set { unsigned long long types; uint64_t told[MAX_GPUS]; bool watches[MAX_GPUS]; };
struct event_data { device_t device; unsigned long long type, data; unsigned gpu_instance, compute_instance; };

static const unsigned long long XID_EVENT = 0x8;

NVML(nvmlEventSetCreate)(struct event_set **set) {
    ENTER(NULL, LIBRARY);
    *set = calloc(1, sizeof **set);
    return *set ? SUCCESS : MEMORY;
}

NVML(nvmlDeviceRegisterEvents)(device_t device, unsigned long long types, struct event_set *set) {
    ENTER(device, CARD);
    set->types |= types;
    if (types & XID_EVENT && !set->watches[device->gpu]) {
        set->watches[device->gpu] = true;
        set->told[device->gpu] = gpu_of(device)->xids_written;
    }
    return SUCCESS;
}

static bool next_event(struct event_set *set, struct event_data *data) {
    for (int gpu = 0; gpu < MAX_GPUS; gpu++) {
        if (!set->watches[gpu] || set->told[gpu] >= state->gpus[gpu].xids_written)
            continue;
        uint64_t xid = state->gpus[gpu].xids[set->told[gpu]++ % MAX_XIDS];
        *data = (struct event_data){handle_of(gpu), XID_EVENT, xid, NO_INSTANCE, NO_INSTANCE};
        return true;
    }
    return false;
}

NVML(nvmlEventSetWait_v2)(struct event_set *set, struct event_data *data, unsigned timeout_ms) {
    ENTER(NULL, LIBRARY);
    if (!set || !data)
        return INVALID_ARGUMENT;
    if (next_event(set, data))
        return SUCCESS;
    rest((uint64_t)timeout_ms * 1000);
    return next_event(set, data) ? SUCCESS : TIMED_OUT;
}

NVML(nvmlEventSetFree)(struct event_set *set) {
    ENTER(NULL, LIBRARY);
    free(set);
    return SUCCESS;
}

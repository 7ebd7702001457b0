/* A scripted libhlml: answers from the text file that FAKE_HLML_STATE names, read on every call.
 *
 * Lines: "driver VERSION", "card UUID MINOR BUS NAME ENERGY_MJ POWER_MW UTIL USED TOTAL CELSIUS LIMIT_MW REASONS", and
 * "script FUNCTION CODE SECONDS": a function of that name fails with the code, or waits that long, or crashes (-1).
 * Functions and types as in Intel's hlml.h; a value of -1 is one that the card does not support.
 */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define SUCCESS 0
#define UNINITIALIZED 1
#define INVALID_ARGUMENT 2
#define NOT_SUPPORTED 3
#define INSUFFICIENT_SIZE 7
#define DRIVER_NOT_LOADED 9
#define MAX_CARDS 16

typedef struct {
    char uuid[64], bus[32], name[64];
    long long minor, energy, power, utilization, used, total, celsius, limit, reasons;
} card_t;

static int initialized;

/* Fills cards and the driver's version; returns the number of cards, or -1 without a state. */
static int state(card_t *cards, char *version) {
    const char *path = getenv("FAKE_HLML_STATE");
    FILE *file = path ? fopen(path, "r") : NULL;
    if (!file)
        return -1;
    char line[1024];
    int count = 0;
    while (fgets(line, sizeof line, file)) {
        card_t *c = &cards[count];
        if (version && sscanf(line, "driver %63s", version) == 1)
            continue;
        if (count < MAX_CARDS &&
            sscanf(line, "card %63s %lld %31s %63s %lld %lld %lld %lld %lld %lld %lld %lld", c->uuid, &c->minor, c->bus,
                   c->name, &c->energy, &c->power, &c->utilization, &c->used, &c->total, &c->celsius, &c->limit,
                   &c->reasons) == 12)
            count++;
    }
    fclose(file);
    return count;
}

/* What the script says of a function: 0 to go on. */
static int scripted(const char *function) {
    const char *path = getenv("FAKE_HLML_STATE");
    FILE *file = path ? fopen(path, "r") : NULL;
    if (!file)
        return DRIVER_NOT_LOADED;
    char line[1024], name[128];
    int code = 0, found = 0;
    double seconds = 0;
    while (fgets(line, sizeof line, file))
        if (sscanf(line, "script %127s %d %lf", name, &found, &seconds) == 3 && !strcmp(name, function)) {
            code = found;
            if (seconds > 0)
                usleep((useconds_t)(seconds * 1e6));
        }
    fclose(file);
    if (code < 0)
        abort();
    return code;
}

#define BEGIN                                                                                                          \
    int code = scripted(__func__);                                                                                     \
    if (code)                                                                                                          \
        return code;                                                                                                   \
    if (!initialized)                                                                                                  \
        return UNINITIALIZED;

#define CARD                                                                                                           \
    BEGIN card_t cards[MAX_CARDS + 1];                                                                                 \
    long index = (long)(intptr_t)device - 1;                                                                           \
    if (index < 0 || index >= state(cards, NULL))                                                                      \
        return INVALID_ARGUMENT;                                                                                       \
    card_t *card = &cards[index];

#define GIVE(type, value)                                                                                              \
    if ((value) < 0)                                                                                                   \
        return NOT_SUPPORTED;                                                                                          \
    *found = (type)(value);                                                                                            \
    return SUCCESS;

static int text(char *to, unsigned size, const char *from) {
    if (size <= strlen(from))
        return INSUFFICIENT_SIZE;
    strcpy(to, from);
    return SUCCESS;
}

int hlml_init(void) {
    int code = scripted(__func__);
    initialized = !code;
    return code;
}

int hlml_shutdown(void) {
    initialized = 0;
    return SUCCESS;
}

int hlml_get_driver_version(char *version, unsigned size) {
    BEGIN char found[64] = "";
    card_t cards[MAX_CARDS + 1];
    state(cards, found);
    return text(version, size, found);
}

int hlml_device_get_count(unsigned *found) {
    BEGIN card_t cards[MAX_CARDS + 1];
    *found = (unsigned)state(cards, NULL);
    return SUCCESS;
}

int hlml_device_get_handle_by_index(unsigned index, void **device) {
    BEGIN *device = (void *)(intptr_t)(index + 1);
    return SUCCESS;
}

int hlml_device_get_uuid(void *device, char *uuid, unsigned size) { CARD return text(uuid, size, card->uuid); }

int hlml_device_get_name(void *device, char *name, unsigned size) { CARD return text(name, size, card->name); }

int hlml_device_get_minor_number(void *device, unsigned *found) { CARD GIVE(unsigned, card->minor) }

struct pci {
    unsigned bus;
    char bus_id[19];
};

int hlml_device_get_pci_info(void *device, struct pci *info) {
    CARD info->bus = 0;
    strncpy(info->bus_id, card->bus, sizeof info->bus_id - 1);
    info->bus_id[sizeof info->bus_id - 1] = 0;
    return SUCCESS;
}

int hlml_device_get_total_energy_consumption(void *device, unsigned long long *found) {
    CARD GIVE(unsigned long long, card->energy)
}

int hlml_device_get_power_usage(void *device, unsigned *found) { CARD GIVE(unsigned, card->power) }

int hlml_device_get_power_management_limit(void *device, unsigned *found) { CARD GIVE(unsigned, card->limit) }

int hlml_device_get_current_clocks_throttle_reasons(void *device, unsigned long long *found) {
    CARD GIVE(unsigned long long, card->reasons)
}

int hlml_device_get_temperature(void *device, int sensor, unsigned *found) {
    CARD if (sensor) return NOT_SUPPORTED;
    GIVE(unsigned, card->celsius)
}

struct utilization {
    unsigned aip, memory;
};

int hlml_device_get_utilization_rates(void *device, struct utilization *found) {
    CARD if (card->utilization < 0) return NOT_SUPPORTED;
    found->aip = (unsigned)card->utilization;
    found->memory = 0;
    return SUCCESS;
}

struct memory {
    unsigned long long free, total, used;
};

int hlml_device_get_memory_info(void *device, struct memory *found) {
    CARD if (card->total < 0) return NOT_SUPPORTED;
    found->free = (unsigned long long)(card->total - card->used);
    found->total = (unsigned long long)card->total;
    found->used = (unsigned long long)card->used;
    return SUCCESS;
}

/* What NVIDIA's driver says of an A100 of 40 GiB that can be divided: a stand-in for libnvidia-ml.so.1, by its header.
   The file $STAND_IN_MODE has whether division is on; parts are forgotten with the process. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct { unsigned id, profile; int there; } instance;
typedef struct {
    unsigned version, id, p2p, slices, count, processors, copy, decode, encode, jpeg, ofa;
    unsigned long long memory;
    char name[96];
} profile_info;
typedef struct { void *device; unsigned id, profile, start, size; } instance_info;

static const struct { unsigned number, id, slices, count; unsigned long long memory; const char *name; } offered[] = {
    {0, 19, 1, 7, 4864, "MIG 1g.5gb"}, {1, 14, 2, 3, 9856, "MIG 2g.10gb"}, {2, 9, 3, 2, 19968, "MIG 3g.20gb"},
};
static instance made[8];
static char card;
enum { BAD = 2, NONE = 3, ABSENT = 6, FULL = 7, USED = 19 };

int nvmlInitWithFlags(unsigned flags) { return 0; }
int nvmlShutdown(void) { return 0; }
const char *nvmlErrorString(int code) { return code == FULL ? "Insufficient Size" : code == USED ? "In use by another client" : "Other"; }

int nvmlDeviceGetHandleByPciBusId_v2(const char *place, void **found) {
    *found = &card;
    return strcmp(place, "0000:65:00.0") ? ABSENT : 0;
}
int nvmlDeviceGetMigMode(void *device, unsigned *now, unsigned *pending) {
    *now = *pending = getenv("STAND_IN_MODE") && !strcmp(getenv("STAND_IN_MODE"), "on");
    return 0;
}
int nvmlDeviceGetGpuInstanceProfileInfoV(void *device, unsigned number, profile_info *info) {
    if (info->version != (sizeof *info | 2u << 24) || number >= 18) return BAD;
    if (number >= 3) return NONE;
    info->id = offered[number].id, info->slices = offered[number].slices, info->count = offered[number].count;
    info->memory = offered[number].memory;
    strcpy(info->name, offered[number].name);
    return 0;
}
static unsigned left(unsigned id) {
    unsigned taken = 0, n, i;
    for (i = 0; i < 8; i++)
        for (n = 0; made[i].there && n < 3; n++) taken += offered[n].id == made[i].profile ? offered[n].slices : 0;
    for (n = 0; n < 3; n++)
        if (offered[n].id == id) return (7 - taken) / offered[n].slices < offered[n].count ? (7 - taken) / offered[n].slices : offered[n].count;
    return 0;
}
int nvmlDeviceGetGpuInstanceRemainingCapacity(void *device, unsigned id, unsigned *count) { *count = left(id); return 0; }
int nvmlDeviceCreateGpuInstance(void *device, unsigned id, instance **found) {
    if (!left(id)) return FULL;
    for (unsigned i = 1; i < 8; i++)
        if (!made[i].there) { made[i] = (instance){i, id, 1}; *found = &made[i]; return 0; }
    return FULL;
}
int nvmlDeviceGetGpuInstances(void *device, unsigned id, instance **found, unsigned *count) {
    *count = 0;
    for (unsigned i = 0; i < 8; i++) if (made[i].there && made[i].profile == id) found[(*count)++] = &made[i];
    return 0;
}
int nvmlDeviceGetGpuInstanceById(void *device, unsigned id, instance **found) {
    *found = &made[id % 8];
    return id < 8 && made[id].there ? 0 : ABSENT;
}
int nvmlGpuInstanceGetInfo(instance *one, instance_info *info) {
    *info = (instance_info){&card, one->id, one->profile, 0, 1};
    return 0;
}
int nvmlGpuInstanceDestroy(instance *one) {
    if (getenv("STAND_IN_USED")) return USED;
    one->there = 0;
    return 0;
}

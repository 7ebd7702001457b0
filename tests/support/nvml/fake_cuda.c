/* As much of libcuda.so.1 as benchmarks/gpu_load.py calls: a product of ones takes a millisecond and is right. */

#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { SUCCESS = 0, INVALID_VALUE = 1, OUT_OF_MEMORY = 2, INVALID_PTX = 218, NOT_FOUND = 500 };

typedef uint64_t pointer_t; /* CUdeviceptr */

static int context, module, function;

int cuInit(unsigned flags) { return flags ? INVALID_VALUE : SUCCESS; }

int cuDeviceGet(int *device, int ordinal) {
    *device = ordinal;
    return ordinal ? INVALID_VALUE : SUCCESS;
}

int cuDevicePrimaryCtxRetain(void **to, int device) {
    *to = &context;
    return device ? INVALID_VALUE : SUCCESS;
}

int cuCtxSetCurrent(void *from) { return from == &context ? SUCCESS : INVALID_VALUE; }

int cuModuleLoadData(void **to, const char *ptx) {
    *to = &module;
    return strstr(ptx, ".target sm_50") ? INVALID_PTX : SUCCESS; /* as a driver may that has dropped it */
}

int cuModuleGetFunction(void **to, void *from, const char *name) {
    *to = &function;
    return from == &module && strcmp(name, "product") == 0 ? SUCCESS : NOT_FOUND;
}

int cuMemAlloc_v2(pointer_t *to, size_t bytes) {
    *to = (pointer_t)(uintptr_t)malloc(bytes);
    return *to ? SUCCESS : OUT_OF_MEMORY;
}

int cuMemsetD32_v2(pointer_t to, unsigned value, size_t count) {
    for (size_t place = 0; place < count; place++)
        ((unsigned *)(uintptr_t)to)[place] = value;
    return SUCCESS;
}

int cuMemcpyDtoH_v2(void *to, pointer_t from, size_t bytes) {
    memcpy(to, (void *)(uintptr_t)from, bytes);
    return SUCCESS;
}

int cuLaunchKernel(void *kernel, unsigned grid_x, unsigned grid_y, unsigned grid_z, unsigned block_x, unsigned block_y,
                   unsigned block_z, unsigned shared_bytes, void *stream, void **parameters, void **extra) {
    unsigned size = *(unsigned *)parameters[3];
    if (kernel != &function || grid_z != 1 || block_z != 1 || shared_bytes || stream || extra ||
        grid_x * block_x != size || grid_y * block_y > size)
        return INVALID_VALUE;
    float *product = (float *)(uintptr_t) * (pointer_t *)parameters[2];
    product[0] = product[1] = (float)size;
    return usleep(1000) ? INVALID_VALUE : SUCCESS;
}

int cuCtxSynchronize(void) { return SUCCESS; }

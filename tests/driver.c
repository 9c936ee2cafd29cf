/* The NVIDIA driver at its boundary: a library with the functions that are asked. */
#include <string.h>
typedef void *device;
static int starts = 0;
static int put(char *out, unsigned size, const char *text) {
    if (strlen(text) >= size) return 7;
    strcpy(out, text);
    return 0;
}
int nvmlInit_v2(void) { starts++; return INIT; }
int nvmlShutdown(void) { starts--; return 0; }
int balance(void) { return starts; }
int nvmlSystemGetDriverVersion(char *o, unsigned n) { return put(o, n, "580.95.05"); }
int nvmlSystemGetCudaDriverVersion_v2(int *o) { *o = 13000; return 0; }
int nvmlDeviceGetCount_v2(unsigned *o) { *o = 2; return 0; }
int nvmlDeviceGetHandleByIndex_v2(unsigned i, device *o) { *o = (device)(i + 1ul); return HANDLE; }
int nvmlDeviceGetName(device d, char *o, unsigned n) { return put(o, n, NAME); }
int nvmlDeviceGetUUID(device d, char *o, unsigned n) {
    if ((unsigned long)d >= 100) return put(o, n, (unsigned long)d % 2 ? "MIG-1" : "MIG-0");
    return put(o, n, d == (device)1 ? "GPU-0" : "GPU-1");
}
int nvmlDeviceGetCudaComputeCapability(device d, int *a, int *b) { *a = MAJOR; *b = 0; return 0; }
int nvmlDeviceGetNumGpuCores(device d, unsigned *o) { *o = CORES; return 0; }
int nvmlDeviceGetMemoryInfo(device d, unsigned long long *o) {
    o[0] = 85520809984ull; o[1] = 1; o[2] = 2; return 0;
}
int nvmlDeviceGetEccMode(device d, unsigned *a, unsigned *b) { *a = 1; *b = 0; return ECC; }
int nvmlDeviceGetMigMode(device d, unsigned *a, unsigned *b) { *a = MIG; *b = 1; return 0; }
int nvmlDeviceGetPowerManagementLimit(device d, unsigned *o) { *o = 700000; return 0; }
/* Slices have handles of their own, above 100. */
int nvmlDeviceGetMaxMigDeviceCount(device d, unsigned *o) { *o = 7; return SLICES; }
int nvmlDeviceGetMigDeviceHandleByIndex(device d, unsigned i, device *o) {
    *o = (device)(100ul * (unsigned long)d + i); return i < 2 ? 0 : 6;
}
int nvmlDeviceGetAttributes_v2(device d, unsigned *o) {
    if ((unsigned long)d < 100) return 3;
    o[0] = 16 << (unsigned long)d % 2; memset(o + 1, 0, 36); return 0;
}

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
int nvmlDeviceGetName(device d, char *o, unsigned n) { return put(o, n, "NVIDIA H100 80GB HBM3"); }
int nvmlDeviceGetUUID(device d, char *o, unsigned n) {
    return put(o, n, d == (device)1 ? "GPU-0" : "GPU-1");
}
int nvmlDeviceGetCudaComputeCapability(device d, int *a, int *b) { *a = 9; *b = 0; return 0; }
int nvmlDeviceGetNumGpuCores(device d, unsigned *o) { *o = 16896; return 0; }
int nvmlDeviceGetMemoryInfo(device d, unsigned long long *o) {
    o[0] = 85520809984ull; o[1] = 1; o[2] = 2; return 0;
}
int nvmlDeviceGetEccMode(device d, unsigned *a, unsigned *b) { *a = 1; *b = 0; return ECC; }
int nvmlDeviceGetMigMode(device d, unsigned *a, unsigned *b) { *a = 0; *b = 1; return 0; }
int nvmlDeviceGetPowerManagementLimit(device d, unsigned *o) { *o = 700000; return 0; }

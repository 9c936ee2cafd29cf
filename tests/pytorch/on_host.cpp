// Runs the kernel of manifest/pytorch/sums.cu thread by thread, for tests of its arithmetic.

#define __device__ static
#define __global__
#define __grid_constant__
#define __noinline__
#define __launch_bounds__(threads)

struct Index { unsigned x; };
struct int4 { int x, y, z, w; };
static Index threadIdx, blockIdx;
static void atomicAdd(unsigned long long *to, unsigned long long sum) { *to += sum; }

#include "sums.cu"

extern "C" void launch(unsigned blocks, const Addresses *addresses, const Word **pointed)
{
    for (blockIdx.x = 0; blockIdx.x < blocks; blockIdx.x++)
        for (threadIdx.x = 0; threadIdx.x < THREADS; threadIdx.x++)
            manifest_sums(*addresses, pointed[0], pointed[1], pointed[2], pointed[3],
                          (Word *)pointed[4]);
}

// The sums `ml32x2` that lanes.py defines, of many tensors in one launch. sums.ptx is made of this.
//
// A block takes one piece: some rows of one tensor. Each of its threads keeps the weights of sixteen
// columns in registers and goes down the rows, so each lane is read once and weights hardly ever.
// Sums wrap, so neither the division into pieces nor the order of blocks can show in them.

typedef unsigned long long Word;

const int THREADS = 256;
const int GROUPS = 4; // of four neighbouring columns, for each thread
const int ROW_LANES = 4 * GROUPS * THREADS;

// Four bytes as a signed number; behind the end of a tensor there are zeros.
__device__ __noinline__ Word lane_at(const unsigned char *row, Word column, Word bytes)
{
    Word at = 4 * column;
    if (at + 4 <= bytes)
        return (Word)(long long)*(const int *)(row + at);
    unsigned found = 0;
    for (int shift = 0; at < bytes; shift += 8)
        found |= (unsigned)row[at++] << shift;
    return (Word)(long long)(int)found;
}

// The sums of a warp first, as few can add to one place at a time.
__device__ void add_up(Word sum, Word *to)
{
#ifdef __CUDACC__
    for (int distance = 16; distance; distance /= 2)
        sum += __shfl_down_sync(0xffffffff, sum, distance);
    if (threadIdx.x % 32 == 0)
#endif
        atomicAdd(to, sum);
}

// By value, as these change from step to step, and a table would have to be copied there each time.
const int MOST_TENSORS = 480;
struct Addresses { Word of[MOST_TENSORS]; };

// addresses     where each tensor lies, on four bytes
// sizes         bytes of each
// pieces        three words each: number of the tensor, its first row here, how many rows
// lane_weights  2 x 4096 words; row_weights  two words for each row
// sums          two words for each tensor, zero at first
extern "C" __global__ void __launch_bounds__(THREADS) manifest_sums(
    const __grid_constant__ Addresses addresses, const Word *sizes, const Word *pieces,
    const Word *lane_weights, const Word *row_weights, Word *sums)
{
    const Word *piece = pieces + 3 * (Word)blockIdx.x;
    const Word tensor = piece[0], first = piece[1], last = first + piece[2];
    const unsigned char *data = (const unsigned char *)addresses.of[tensor];
    const bool is_aligned = ((Word)data & 15) == 0;

    Word weights[2][GROUPS][4];
    for (int group = 0; group < GROUPS; group++)
        for (int item = 0; item < 4; item++) {
            const int column = 4 * (threadIdx.x + THREADS * group) + item;
            weights[0][group][item] = lane_weights[column];
            weights[1][group][item] = lane_weights[ROW_LANES + column];
        }

    Word one = 0, other = 0;
    for (Word row = first; row < last; row++) {
        const Word start = 4 * ROW_LANES * row;
        const Word bytes = sizes[tensor] - start; // from here to the end of the tensor
        Word of_one = 0, of_other = 0;
        for (int group = 0; group < GROUPS; group++) {
            const Word column = 4 * (threadIdx.x + THREADS * group);
            if (is_aligned && 4 * column + 16 <= bytes) {
                const int4 four = *(const int4 *)(data + start + 4 * column);
                const int lanes[4] = {four.x, four.y, four.z, four.w};
                for (int item = 0; item < 4; item++) {
                    of_one += (Word)(long long)lanes[item] * weights[0][group][item];
                    of_other += (Word)(long long)lanes[item] * weights[1][group][item];
                }
            } else {
                for (int item = 0; item < 4; item++) {
                    const Word lane = lane_at(data + start, column + item, bytes);
                    of_one += lane * weights[0][group][item];
                    of_other += lane * weights[1][group][item];
                }
            }
        }
        one += of_one * row_weights[2 * row];
        other += of_other * row_weights[2 * row + 1];
    }
    add_up(one, sums + 2 * tensor);
    add_up(other, sums + 2 * tensor + 1);
}

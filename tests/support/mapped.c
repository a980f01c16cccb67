/* Writes to two files as memory that it has read before: tmpfs sets no time for that. The first is mapped to be written
   to, the second becomes so later. Its end is 0, or the number of the file that cannot be mapped. */
#ifdef __i386__ /* without a C library, and by the old call with its arguments in memory */
static long call(long number, long a, long b, long c, long d, long e) {
    long result;
    __asm__ volatile("push %%ebp; xor %%ebp, %%ebp; int $0x80; pop %%ebp"
                     : "=a"(result) : "a"(number), "b"(a), "c"(b), "d"(c), "S"(d), "D"(e) : "memory");
    return result;
}

static int open_file(const char *path) { return call(5, (long)path, 2, 0, 0, 0); }
static char *map(int file, int protection) {
    long arguments[6] = {0, 4096, protection, 1, file, 0};
    return (char *)(protection & 2 ? call(90, (long)arguments, 0, 0, 0, 0) : call(192, 0, 4096, protection, 1, file));
}
static void protect(char *memory) { call(125, (long)memory, 4096, 3, 0, 0); }
static int is_mapped(char *memory) { return (unsigned long)memory < 0xfffff000; }
#else
#include <fcntl.h>
#include <sys/mman.h>

static int open_file(const char *path) { return open(path, O_RDWR); }
static char *map(int file, int protection) { return mmap(0, 4096, protection, MAP_SHARED, file, 0); }
static void protect(char *memory) { mprotect(memory, 4096, PROT_READ | PROT_WRITE); }
static int is_mapped(char *memory) { return memory != MAP_FAILED; }
#endif

static int change(const char *path, int protection) {
    volatile char *memory = map(open_file(path), protection);
    if (!is_mapped((char *)memory)) return 0;
    char first = memory[0];
    if (protection == 1) protect((char *)memory);
    memory[1] = first;
    return 1;
}

static int change_both(void) { return !change("/srv/mapped", 3) ? 1 : !change("/srv/protected", 1) ? 2 : 0; }

#ifdef __i386__
void _start(void) {
    call(1, change_both(), 0, 0, 0, 0);
    for (;;);
}
#else
int main(void) { return change_both(); }
#endif
